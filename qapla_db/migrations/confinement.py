"""Migrations that run elsewhere than on their database leave the real ones alone.

A revision gets its connection from ``op.get_bind()``. One that takes an engine or a
session of the application instead reaches the database of the settings, also where a
shadow is migrated or SQL is only written down. There the registered databases are
out of reach for the thread that migrates.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.pool import Pool

from qapla_db.backends import get_backend, safe_url
from qapla_db.database import Database
from qapla_db.errors import Refused
from qapla_db.migrations.named_databases import as_a_whole, before_a_dot, schema_is_database

__all__ = ["confined"]

Identity = tuple[str, str]

_OF_THE_SERVER = {"information_schema", "mysql", "performance_schema", "sys"}


@contextmanager
def confined(database: Database, url: sa.URL | None) -> Iterator[None]:
    """Keep the registered databases out of reach of this thread for a block.

    It does nothing where migrations run on their own database.

    :param database: whose migrations run; the others of its application are meant too.
    :param url: where they run; None where they run nowhere and SQL is written down.
    :raises Refused: a revision connects to one of them, or a statement of it names
        another database of the server. What it does past SQLAlchemy, on a driver's own
        connection, is not seen, nor what other threads and processes do.
    """
    if url == database.settings.url:
        yield
        return
    _listen()
    _here.guards.append(_Guard(database, url))
    try:
        yield
    finally:
        _here.guards.pop()


class _Here(threading.local):
    """What holds in this thread."""

    def __init__(self) -> None:
        self.guards: list[_Guard] = []


_here = _Here()


@cache
def _listen() -> None:
    """Listen to every engine from now on.

    It is never undone: to take a listener away disturbs the threads that just call it.
    """
    event.listen(Engine, "do_connect", _connect)
    event.listen(Engine, "engine_connect", _begin)
    event.listen(Pool, "checkout", _check_out)
    event.listen(Engine, "before_cursor_execute", _execute)
    event.listen(Engine, "after_cursor_execute", _executed)


def _connect(
    dialect: Dialect, record: object, arguments: list[Any], keywords: Mapping[str, Any]
) -> None:
    for guard in _here.guards:
        guard.connect(dialect, arguments, keywords)


def _begin(connection: Connection) -> None:
    for guard in _here.guards:
        guard.begin(connection)


def _check_out(dbapi: object, record: object, pooled: Any) -> None:
    for guard in _here.guards:
        guard.check_out(pooled)


def _execute(connection: Connection, cursor: Any, statement: str, *rest: object) -> None:
    for guard in _here.guards:
        guard.execute(connection, cursor, statement)


def _executed(connection: Connection, cursor: Any, statement: str, *rest: object) -> None:
    for guard in _here.guards:
        guard.executed(connection, cursor, statement)


class _Guard:
    """Refuses what leads out of where the migrations run."""

    def __init__(self, database: Database, url: sa.URL | None) -> None:
        self._database, self._url = database, url
        self._schemas: set[str] | None = None
        self._identities: dict[sa.URL, Identity | None] = {}

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

    def connect(self, dialect: Dialect, arguments: list[Any], keywords: Mapping[str, Any]) -> None:
        self._refuse(_asked_for(dialect, arguments, keywords))

    def begin(self, connection: Connection) -> None:
        try:
            self._refuse(connection.engine.url)
        except Refused:
            connection.close()
            raise

    def check_out(self, pooled: Any) -> None:
        # past the engine's Connection: engine.raw_connection()
        for one in self._database.host.dbs.values():
            if one.has_pool(pooled._pool):
                self._refuse(one.settings.url)

    def execute(self, connection: Connection, cursor: Any, statement: str) -> None:
        url = connection.engine.url
        self._refuse(url)  # the connection may be older than this
        here, dialect = self._identity(url), connection.dialect
        if here is None or dialect.name == "sqlite":
            return
        found = self._named(statement, here, dialect, cursor)
        if found is not None:
            self._refuse_name(found, dialect)

    def executed(self, connection: Connection, cursor: Any, statement: str) -> None:
        if connection.dialect.name != "sqlite" or "attach" not in statement.lower():
            return
        # the file may be an expression, or a parameter
        files = cursor.connection.execute("SELECT file FROM pragma_database_list WHERE file <> ''")
        for (file,) in files.fetchall():
            self._refuse(sa.URL.create("sqlite", database=file))

    def _identity(self, url: sa.URL) -> Identity | None:
        if url not in self._identities:  # names of servers are looked up for it
            self._identities[url] = _identity(url)
        return self._identities[url]

    def _refuse(self, url: sa.URL) -> None:
        identity = self._identity(url)
        found = next((one for barred, one in self._barred if barred == identity), None)
        if found is None:
            return
        raise Refused(
            f"a revision of {self._database.name!r} connects to the database {found.name!r} at "
            f"{found.settings.address} by itself, while {self._where}: it would change the real "
            "one. Let it use op.get_bind() or op.execute(), or put what it does there into the "
            f"migrations of {found.name!r}"
        )

    def _named(self, statement: str, here: Identity, dialect: Dialect, cursor: Any) -> str | None:
        """Return a database that a statement names and must not."""
        whole, parts = [*as_a_whole(statement, dialect)], [*before_a_dot(statement, dialect)]
        if here != self._own:
            barred = {name.casefold() for (server, name), _ in self._barred if server == here[0]}
            return next((one for one in [*whole, *parts] if one.casefold() in barred), None)
        for one in whole:
            if one.casefold() != here[1].casefold():
                return one
        return next((one for one in parts if one.casefold() in self._others(cursor)), None)

    def _refuse_name(self, name: str, dialect: Dialect) -> None:
        if schema_is_database(dialect):
            advice = f"Leave the name away, and put what is of {name!r} into migrations of its own"
        else:
            advice = (
                "Let the server put it in: DO $$ BEGIN EXECUTE format('ALTER DATABASE %I ...', "
                "current_database()); END $$"
            )
        raise Refused(
            f"a revision of {self._database.name!r} names the database {name!r}, while "
            f"{self._where}: what it does there would be done to the real one. {advice}"
        )

    @property
    def _where(self) -> str:
        if self._url is None:
            return "its SQL is only looked at"
        return f"its migrations run on {safe_url(self._url)}"

    def _others(self, cursor: Any) -> set[str]:
        """Return the other databases of a MySQL or MariaDB server."""
        if self._schemas is None:
            own = (self._own or ("", ""))[1].casefold()
            with cursor.connection.cursor() as other:
                other.execute("SELECT schema_name FROM information_schema.schemata")
                names = {str(row[0]).casefold() for row in other}
            self._schemas = names - _OF_THE_SERVER - {own}
        return self._schemas


def _identity(url: sa.URL) -> Identity | None:
    backend = get_backend(url)
    return None if backend is None else backend.identity(url)


def _asked_for(dialect: Dialect, arguments: list[Any], keywords: Mapping[str, Any]) -> sa.URL:
    """Return the URL that a driver's arguments come from, as far as it says what is meant."""
    socket = keywords.get("unix_socket")
    names = (keywords.get(key) for key in ("dbname", "database", "db"))
    query = {"unix_socket": socket, "uri": "true" if keywords.get("uri") else None}
    return sa.URL.create(
        dialect.name,
        host=keywords.get("host"),
        port=keywords.get("port"),
        database=next(filter(None, names), arguments[0] if arguments else None),
        query={key: value for key, value in query.items() if value},
    )
