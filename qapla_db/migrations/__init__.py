"""Migrations with Alembic, for each registered database."""

from qapla_db.migrations.commands import current, downgrade, migrate, recreate
from qapla_db.migrations.environment import AlembicEnv
from qapla_db.migrations.status import DatabaseStatus, assert_migrated, status_of

__all__ = [
    "AlembicEnv",
    "DatabaseStatus",
    "assert_migrated",
    "current",
    "downgrade",
    "migrate",
    "recreate",
    "status_of",
]
