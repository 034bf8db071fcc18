"""Templates: copies of migrated test databases, from which a run begins in no time."""

from __future__ import annotations

from qapla_db.database import Database
from qapla_db.testing.templates.base import NoTemplates, Templates
from qapla_db.testing.templates.memory import MemoryTemplates
from qapla_db.testing.templates.mysql import MySQLTemplates
from qapla_db.testing.templates.postgresql import PostgreSQLTemplates
from qapla_db.testing.templates.sqlite import SQLiteTemplates

__all__ = ["Templates", "templates_of"]

_KINDS: dict[str, type[Templates]] = {
    "postgresql": PostgreSQLTemplates,
    "embedded": PostgreSQLTemplates,
    "mysql": MySQLTemplates,
    "mariadb": MySQLTemplates,
    "sqlite": SQLiteTemplates,
}


def templates_of(database: Database, base: str) -> Templates:
    """Return the templates of a test database.

    :param base: its name in the settings, which workers and runs at one time have in common.
    :raises ServerError: its server cannot be reached.
    """
    settings = database.settings
    if settings.backend.is_volatile(settings.url):
        return MemoryTemplates(database, base)
    return _KINDS.get(settings.backend.name, NoTemplates)(database, base)
