"""The kinds of database engine, and how to find the one of a URL."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

import sqlalchemy as sa

from qapla_db.backends.address import safe_url
from qapla_db.backends.base import Backend
from qapla_db.backends.states import READ_ONLY

__all__ = ["READ_ONLY", "Backend", "get_backend", "safe_url"]

_BUILT_IN = {
    "postgresql": "postgresql:PostgreSQLBackend",
    "embedded": "embedded:EmbeddedBackend",
    "sqlite": "sqlite:SQLiteBackend",
    "mysql": "mysql:MySQLBackend",
    "mariadb": "mysql:MariaDBBackend",
}


def get_backend(url: sa.URL) -> Backend | None:
    """Return the backend of a URL's dialect, or None when there is none.

    Besides our own, those registered in the entry point group
    ``qapla_db.backends`` are found, by the dialect's name.
    """
    return _backend(url.drivername.partition("+")[0])


@cache
def _backend(dialect: str) -> Backend | None:
    if dialect in _BUILT_IN:
        module, _, name = _BUILT_IN[dialect].partition(":")
        found: Backend = getattr(import_module(f"{__name__}.{module}"), name)()
        return found
    for entry in entry_points(group="qapla_db.backends"):
        if entry.name == dialect:
            other: Backend = entry.load()()
            return other
    return None


def backend_names() -> list[str]:
    """Return the names of the dialects that have a backend."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group="qapla_db.backends"))})
