"""Templates: copies of migrated test databases, from which a run begins in no time."""

from __future__ import annotations

from qapla_db.database import Database
from qapla_db.testing.templates.base import NoTemplates, Templates

__all__ = ["Templates", "templates_of"]


def templates_of(database: Database, base: str) -> Templates:
    """Return the templates of a test database.

    :param base: its name in the settings, which workers and runs at one time have in common.
    :raises ServerError: its server cannot be reached.
    """
    settings = database.settings
    is_volatile = settings.backend.is_volatile(settings.url)
    return _kind("memory" if is_volatile else settings.backend.name)(database, base)


def _kind(name: str) -> type[Templates]:
    # a run begins sooner without those of the other servers
    match name:
        case "memory":
            from qapla_db.testing.templates.memory import MemoryTemplates

            return MemoryTemplates
        case "postgresql" | "embedded":
            from qapla_db.testing.templates.postgresql import PostgreSQLTemplates

            return PostgreSQLTemplates
        case "mysql" | "mariadb":
            from qapla_db.testing.templates.mysql import MySQLTemplates

            return MySQLTemplates
        case "sqlite":
            from qapla_db.testing.templates.sqlite import SQLiteTemplates

            return SQLiteTemplates
    return NoTemplates
