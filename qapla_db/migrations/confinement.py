"""Migrations that run elsewhere than on their database leave the real ones alone.

A revision gets its connection from ``op.get_bind()``. One that takes an engine or a
session of the application instead reaches the database of the settings, also where a
shadow is migrated or SQL is only written down. There the registered databases are
out of reach for the thread that migrates.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.pool import Pool

from qapla_db.backends import get_backend, safe_url
from qapla_db.database import Database
from qapla_db.errors import Refused
from qapla_db.migrations.sqltext import NAME, bare, split

__all__ = ["confined"]

Identity = tuple[str, str]

_WHOLE = re.compile(
    rf"(?:(?:CREATE|DROP|ALTER) (?P<kind>DATABASE|SCHEMA) (?:IF (?:NOT )?EXISTS )?|USE )({NAME})",
    re.IGNORECASE,
)
"""A statement about a database as a whole."""

_QUALIFIER = re.compile(r"(`[^`]+`|[^\W\d][\w$]*) ?\. ?(?=[`\w])")
"""What stands before a dot."""

_SCHEMA_IS_DATABASE = ("mysql", "mariadb")
_OF_THE_SERVER = {"information_schema", "mysql", "performance_schema", "sys"}


@contextmanager
def confined(database: Database, url: sa.URL | None) -> Iterator[None]:
    """Keep the registered databases out of reach of this thread for a block.

    It does nothing where migrations run on their own database.

    :param database: whose migrations run; the others of its application are meant too.
    :param url: where they run; None where they run nowhere and SQL is written down.
    :raises Refused: a revision connects to one of them, or a statement of it names
        another database of the server. A connection that a driver makes without
        SQLAlchemy is not seen.
    """
    if url == database.settings.url:
        yield
        return
    guard = _Guard(database, url)
    listeners: list[tuple[type, str, Callable[..., Any]]] = [
        (Engine, "do_connect", guard.connect),
        (Engine, "engine_connect", guard.begin),
        (Pool, "checkout", guard.check_out),
        (Engine, "before_cursor_execute", guard.execute),
    ]
    for target, name, listener in listeners:
        event.listen(target, name, listener)
    try:
        yield
    finally:
        for target, name, listener in listeners:
            event.remove(target, name, listener)


class _Guard:
    """Listener of every engine: refuses what leads out of where the migrations run."""

    def __init__(self, database: Database, url: sa.URL | None) -> None:
        self._database, self._url = database, url
        self._thread = threading.get_ident()
        self._schemas: set[str] | None = None

    @cached_property
    def _own(self) -> Identity | None:
        return None if self._url is None else _identity(self._url)

    @cached_property
    def _barred(self) -> list[tuple[Identity, Database]]:
        # not before there is a connection: names of servers are looked up for it
        return [
            (one.settings.identity, one)
            for one in self._database.host.dbs.values()
            if not one.backend.is_volatile(one.settings.url) and one.settings.identity != self._own
        ]

    def connect(
        self, dialect: Dialect, record: object, arguments: list[Any], keywords: Mapping[str, Any]
    ) -> None:
        self._refuse(_asked_for(dialect, arguments, keywords))

    def begin(self, connection: Connection) -> None:
        try:
            self._refuse(connection.engine.url)
        except Refused:
            connection.close()
            raise

    def check_out(self, dbapi: object, record: object, pooled: Any) -> None:
        # past the engine's Connection: engine.raw_connection()
        for one in self._database.host.dbs.values():
            if one.has_pool(pooled._pool):
                self._refuse(one.settings.url)

    def _refuse(self, url: sa.URL) -> None:
        if self._thread != threading.get_ident():
            return
        identity = _identity(url)
        found = next((one for barred, one in self._barred if barred == identity), None)
        if found is None:
            return
        raise Refused(
            f"a revision of {self._database.name!r} connects to the database {found.name!r} at "
            f"{found.settings.address} by itself, while {self._where}: it would change the real "
            "one. Let it use op.get_bind() or op.execute(), or put what it does there into the "
            f"migrations of {found.name!r}"
        )

    @property
    def _where(self) -> str:
        if self._url is None:
            return "its SQL is only looked at"
        return f"its migrations run on {safe_url(self._url)}"

    def execute(self, connection: Connection, cursor: Any, statement: str, *rest: object) -> None:
        if self._thread != threading.get_ident() or _identity(connection.engine.url) != self._own:
            return
        for one in split(statement):
            named = self._named(one, connection.dialect.name, cursor)
            if named is not None:
                raise Refused(
                    f"a revision of {self._database.name!r} names the database {named!r}, while "
                    f"{self._where}: what it does there would be done to the real one. Leave the "
                    f"name away, and put what is of {named!r} into migrations of its own"
                )

    def _named(self, statement: str, dialect: str, cursor: Any) -> str | None:
        """Return another database of the server that a statement names."""
        own = (self._own or ("", ""))[1].casefold()
        whole = _WHOLE.match(statement)
        if whole and (
            dialect in _SCHEMA_IS_DATABASE or (whole["kind"] or "").upper() == "DATABASE"
        ):
            name = bare(whole[2])
            return None if name.casefold() == own else name
        if dialect not in _SCHEMA_IS_DATABASE:
            return None
        for match in _QUALIFIER.finditer(statement):
            name = bare(match[1])
            if name.casefold() != own and name.casefold() in self._others(cursor):
                return name
        return None

    def _others(self, cursor: Any) -> set[str]:
        if self._schemas is None:
            with cursor.connection.cursor() as other:
                other.execute("SELECT schema_name FROM information_schema.schemata")
                self._schemas = {str(row[0]).casefold() for row in other} - _OF_THE_SERVER
        return self._schemas


def _identity(url: sa.URL) -> Identity | None:
    backend = get_backend(url)
    return None if backend is None else backend.identity(url)


def _asked_for(dialect: Dialect, arguments: list[Any], keywords: Mapping[str, Any]) -> sa.URL:
    """Return the URL that a driver's arguments come from, as far as it says what is meant."""
    socket = keywords.get("unix_socket")
    names = (keywords.get(key) for key in ("dbname", "database", "db"))
    return sa.URL.create(
        dialect.name,
        host=keywords.get("host"),
        port=keywords.get("port"),
        database=next(filter(None, names), arguments[0] if arguments else None),
        query={"unix_socket": socket} if socket else {},
    )
