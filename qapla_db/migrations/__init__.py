"""Migrations with Alembic, for each registered database."""

from qapla_db.migrations.commands import current, downgrade, migrate, recreate
from qapla_db.migrations.environment import AlembicEnv

__all__ = ["AlembicEnv", "current", "downgrade", "migrate", "recreate"]
