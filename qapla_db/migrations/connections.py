"""The connections that migrations run on, and what each kind of engine needs there."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends import Backend
from qapla_db.backends.states import is_autocommit
from qapla_db.database import Database
from qapla_db.errors import MigrationError, ServerError

__all__ = [
    "connected",
    "foreign_key_violations",
    "limited_waits",
    "migration_engine",
    "without_foreign_keys",
]

_WAITED_TOO_LONG = frozenset({"55P03", "40P01"})
"""PostgreSQL: a lock was not available in time; deadlock."""


@contextmanager
def migration_engine(
    database: Database, backend: Backend, url: sa.URL, lock_wait: float
) -> Iterator[Engine]:
    """Yield the engine that migrations run on: one without a pool, closed at the end.

    A database in memory exists on one connection only, so there it is the
    database's own engine.
    """
    if backend.is_volatile(url):
        if url != database.settings.url:
            raise MigrationError(
                f"another database in memory was asked for than that of {database.name!r}; it "
                "exists on one connection only: hand it over in config.attributes['connection']"
            )
        yield database.engine
        return
    engine = backend.create_engine(
        url,
        _options(database.settings.options, url),
        label=database.name,
        key=database.settings.source,
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _Patience(lock_wait))
    try:
        yield engine
    finally:
        engine.dispose()


def _options(given: Any, url: sa.URL) -> dict[str, Any]:
    """Return the user's options, without what is meant for a pool of sessions."""
    options = {
        key: value
        for key, value in given.items()
        if not key.startswith("pool") and key not in ("max_overflow", "isolation_level")
    }
    execution = dict(options.pop("execution_options", {}))
    execution.pop("isolation_level", None)
    connect_args = dict(options.pop("connect_args", {}))
    if url.drivername.partition("+")[2] == "pymysql":
        # a long ALTER TABLE, or the wait for another run, says nothing for minutes
        connect_args.update(read_timeout=None, write_timeout=None)
    return {
        **options,
        "poolclass": pool.NullPool,
        "execution_options": execution,
        "connect_args": connect_args,
    }


class _Patience:
    """Listener: how long SQLite waits for another writer."""

    def __init__(self, seconds: float) -> None:
        self.milliseconds = int(seconds * 1000)

    def __call__(self, dbapi_connection: Any, record: object) -> None:
        dbapi_connection.execute(f"PRAGMA busy_timeout = {self.milliseconds}")


@contextmanager
def connected(engine: Engine, database: Database, address: str) -> Iterator[Connection]:
    """Yield a connection that is in no transaction.

    Alembic commits nothing on a connection that is in one already.

    :raises ServerError: the server cannot be reached, or refuses us.
    """
    try:
        connection = engine.connect()
    except sa.exc.DBAPIError as error:
        raise ServerError(
            f"the database {database.name!r} at {address} cannot be migrated, for it cannot be "
            f"reached: {' '.join(str(error.orig).split())}. Check that the server runs, that "
            f"{database.settings.source!r} is right and that the database exists "
            f"(app.dbs[{database.name!r}].create() makes it)"
        ) from error
    with connection:
        connection.rollback()  # of what a listener of the user's has begun
        yield connection


# --- SQLite


@contextmanager
def without_foreign_keys(connection: Connection, database: str) -> Iterator[None]:
    """Switch the foreign keys of a SQLite connection off.

    Batch mode makes a table anew and drops the old one, which would delete every
    row that refers to it with ON DELETE CASCADE.

    :raises MigrationError: they are on and the connection is in a transaction,
        in which they cannot be switched.
    """
    dbapi: Any = connection.connection.dbapi_connection
    on = bool(dbapi.execute("PRAGMA foreign_keys").fetchone()[0])
    if on and dbapi.in_transaction:
        raise MigrationError(
            f"the connection handed over for the database {database!r} is in a transaction with "
            "foreign keys on: changing a table would delete the rows that refer to it. Execute "
            "PRAGMA foreign_keys = OFF before the transaction begins"
        )
    if on:
        dbapi.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        if on:
            dbapi.execute("PRAGMA foreign_keys = ON")


def foreign_key_violations(connection: Connection) -> Counter[tuple[str, str]]:
    """Count the rows of a SQLite database that refer to nothing, by (table, parent)."""
    found = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return Counter((row[0], row[2]) for row in found)


def known_violations(connection: Connection) -> Counter[tuple[str, str]]:
    """Count what was wrong before; a schema that cannot be checked waits for its mending."""
    with suppress(sa.exc.OperationalError):
        return foreign_key_violations(connection)
    return Counter()


# --- PostgreSQL


@contextmanager
def limited_waits(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Let no statement of a transaction wait longer for a lock; whoever waits blocks others.

    :param seconds: None for no limit.
    """
    if seconds is None or connection.dialect.name != "postgresql":
        yield
        return

    def limit(begun: Connection) -> None:
        if not is_autocommit(begun):
            begun.exec_driver_sql(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")

    event.listen(connection, "begin", limit)
    try:
        yield
    finally:
        event.remove(connection, "begin", limit)


def waited_too_long(backend: Backend, error: sa.exc.DBAPIError) -> bool:
    """Tell whether a statement failed because others held a lock."""
    return error.orig is not None and backend.error_code(error.orig) in _WAITED_TOO_LONG


def pause() -> None:
    """Let those who were waiting behind us through."""
    time.sleep(random.uniform(0.5, 1.5))
