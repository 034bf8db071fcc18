"""The database layer of an application: one declaration per named database.

The everyday names are here, loaded on first use (PEP 562): importing
``qapla_db`` imports no framework and no driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qapla_db.application import Application as Application
    from qapla_db.application import DatabaseApplication as DatabaseApplication
    from qapla_db.application import DatabaseMixin as DatabaseMixin
    from qapla_db.connection import SQLConnection as SQLConnection
    from qapla_db.database import Database as Database
    from qapla_db.decorators import INJECTED as INJECTED
    from qapla_db.decorators import WithDatabase as WithDatabase
    from qapla_db.decorators import connect_celery as connect_celery
    from qapla_db.driver import ReadDriver as ReadDriver
    from qapla_db.driver import WriteDriver as WriteDriver
    from qapla_db.env import AlembicEnv as AlembicEnv
    from qapla_db.errors import NotFound as NotFound
    from qapla_db.errors import QaplaError as QaplaError
    from qapla_db.query.keyset import KeysetPage as KeysetPage
    from qapla_db.query.pages import Page as Page
    from qapla_db.session import Session as Session

__version__ = "0.1.0"

_HOMES = {
    "Application": "application",
    "DatabaseApplication": "application",
    "DatabaseMixin": "application",
    "SQLConnection": "connection",
    "Database": "database",
    "ReadDriver": "driver",
    "WriteDriver": "driver",
    "NotFound": "errors",
    "QaplaError": "errors",
    "KeysetPage": "query.keyset",
    "Page": "query.pages",
    "Session": "session",
    "AlembicEnv": "env",
    "INJECTED": "decorators",
    "WithDatabase": "decorators",
    "connect_celery": "decorators",
}

__all__ = [
    "Application",
    "Database",
    "DatabaseApplication",
    "DatabaseMixin",
    "NotFound",
    "QaplaError",
    "ReadDriver",
    "SQLConnection",
    "Session",
    "WriteDriver",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def includeme(config: Any) -> None:
    """Make ``config.include("qapla_db")`` work in a Pyramid application."""
    from qapla_db.web.pyramid import includeme as include

    include(config)
