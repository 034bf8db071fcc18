"""One migration run at a time for each version table, across processes and machines.

PostgreSQL: a blocking advisory lock holds a snapshot and so deadlocks with
``CREATE INDEX CONCURRENTLY``, and a session's lock leaks through a pooler. So a
connection of its own polls ``pg_try_advisory_xact_lock`` in short transactions,
without bind parameters (the driver's open portal would hold a snapshot too),
and the last statement of the transaction that keeps the lock is a utility
statement. MySQL and MariaDB: ``GET_LOCK``. SQLite needs nothing here: the run
is one BEGIN IMMEDIATE transaction.
"""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from qapla_db.backends.base import log
from qapla_db.errors import MigrationLockTimeout

__all__ = ["Holder", "LockRequest", "lock_holder", "migration_lock", "protected"]

_NAMESPACE = 0x71A9
"""First half of the advisory lock's key, so that it collides with nobody's."""

_POLL = 0.1, 0.3
"""Seconds between two polls: from, to."""


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of a migration run.

    :param who: for people, such as ``the server process 7 (from this machine)``.
    :param end: the statement that ends it.
    """

    who: str
    end: str


def protected(version_table: str, schema: str | None) -> str:
    """Return what the lock of a version table is called in a :class:`LockRequest`."""
    return f"{schema}.{version_table}" if schema else version_table


@dataclass(frozen=True)
class LockRequest:
    """Who wants the lock of what.

    :param database: the database's name, for messages.
    :param address: its URL without password, for messages.
    :param version_table: what is protected, with its schema.
    :param wait: seconds to wait for another run.
    :param say: tells people that we wait.
    """

    database: str
    address: str
    version_table: str
    wait: float
    say: Callable[[str], object]

    def waiting(self) -> None:
        self.say(f"{self.database}: waiting for another migration run to end")

    def held(self, holder: Holder | None) -> MigrationLockTimeout:
        """Return the error that names the holder and how to end it."""
        if holder is None:
            return self.timeout("It has just ended", "Run the migration again")
        return self.timeout(
            f"The lock is held by {holder.who}", f"Wait for it, or end it with {holder.end}"
        )

    def timeout(self, holder: str, advice: str) -> MigrationLockTimeout:
        """Return the error that says who is in the way and what to do."""
        return MigrationLockTimeout(
            f"another process is migrating the database {self.database!r} at {self.address}; "
            f"gave up after {self.wait:g} s. {holder}. {advice}"
        )


def migration_lock(engine: Engine, request: LockRequest) -> AbstractContextManager[None]:
    """Return a context manager that holds the lock of a migration run.

    :raises MigrationLockTimeout: another run did not end in time.
    """
    if engine.dialect.name == "postgresql":
        return _postgresql(engine, request)
    if engine.dialect.name in ("mysql", "mariadb"):
        return _mysql(engine, request)
    return nullcontext()


def lock_holder(connection: Connection, version_table: str) -> Holder | None:
    """Return who migrates now; None when nobody does, or the server does not tell (SQLite).

    :param connection: to the database.
    :param version_table: what is protected, as in :class:`LockRequest`.
    """
    if connection.dialect.name == "postgresql":
        return _postgresql_holder(connection, _key(version_table))
    if connection.dialect.name in ("mysql", "mariadb"):
        return _mysql_holder(connection, _name(connection.engine, version_table))
    return None


@contextmanager
def _postgresql(engine: Engine, request: LockRequest) -> Iterator[None]:
    key = _key(request.version_table)
    with engine.connect() as connection:
        connection.rollback()  # of what a listener of the user's has begun
        connection.execution_options(isolation_level="READ COMMITTED")
        _poll(connection, key, request)
        if (connection.dialect.server_version_info or ()) >= (17,):
            connection.exec_driver_sql("SET LOCAL transaction_timeout = 0")
        _stay(connection)
        yield
        try:
            _stay(connection)
        except sa.exc.DBAPIError:
            log.warning("the migration lock of %r was lost during the run", request.database)


def _key(version_table: str) -> int:
    # advisory locks are per database by themselves
    return zlib.crc32(f"qapla_db.migrations:{version_table}".encode()) & 0x7FFFFFFF


def _stay(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def _poll(connection: Connection, key: int, request: LockRequest) -> None:
    attempt = f"SELECT pg_catalog.pg_try_advisory_xact_lock({_NAMESPACE}, {key})"
    deadline = time.monotonic() + request.wait
    told = False
    while not connection.exec_driver_sql(attempt).scalar():
        connection.rollback()
        if time.monotonic() > deadline:
            raise request.held(_postgresql_holder(connection, key))
        if not told:
            request.waiting()
            told = True
        time.sleep(random.uniform(*_POLL))


def _postgresql_holder(connection: Connection, key: int) -> Holder | None:
    query = sa.text(
        "SELECT pid, application_name, client_addr, xact_start "
        "FROM pg_catalog.pg_locks LEFT JOIN pg_catalog.pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND classid = :namespace AND objid = :key "
        "AND objsubid = 2 AND database = (SELECT oid FROM pg_catalog.pg_database "
        "WHERE datname = current_database())"
    )
    holder = connection.execute(query, {"namespace": _NAMESPACE, "key": key}).first()
    if holder is None:
        return None
    who = [
        str(holder.application_name or "unnamed"),
        f"from {holder.client_addr or 'this machine'}",
    ]
    if holder.xact_start is not None:
        who.append(f"since {holder.xact_start:%Y-%m-%d %H:%M:%S%z}")
    return Holder(
        f"the server process {holder.pid} ({', '.join(who)})",
        f"SELECT pg_terminate_backend({holder.pid})",
    )


@contextmanager
def _mysql(engine: Engine, request: LockRequest) -> Iterator[None]:
    name = _name(engine, request.version_table)
    with engine.connect() as connection:
        connection.rollback()  # of what a listener of the user's has begun
        connection.execution_options(isolation_level="AUTOCOMMIT")
        # idle for as long as the run takes; the server must not hang up
        connection.exec_driver_sql("SET SESSION wait_timeout = 28800")
        if not _get_lock(connection, name, 0):
            request.waiting()
            if not _get_lock(connection, name, request.wait):
                raise request.held(_mysql_holder(connection, name))
        yield
        try:
            released = connection.scalar(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": name})
        except sa.exc.DBAPIError:
            released = None
        if released != 1:
            log.warning("the migration lock of %r was lost during the run", request.database)


def _name(engine: Engine, version_table: str) -> str:
    # one namespace for the whole server, 64 characters at most
    what = f"{engine.url.database}:{version_table}"
    return f"qapla_db:{hashlib.sha256(what.encode()).hexdigest()[:40]}"


def _get_lock(connection: Connection, name: str, wait: float) -> bool:
    query = sa.text("SELECT GET_LOCK(:name, :wait)")
    return bool(connection.scalar(query, {"name": name, "wait": wait}))


def _mysql_holder(connection: Connection, name: str) -> Holder | None:
    number = connection.scalar(sa.text("SELECT IS_USED_LOCK(:name)"), {"name": name})
    if number is None:
        return None
    query = sa.text("SELECT user, host FROM information_schema.processlist WHERE id = :number")
    holder = connection.execute(query, {"number": number}).first()
    who = f" ({holder[0]} from {holder[1]})" if holder is not None else ""
    return Holder(f"the server's connection {number}{who}", f"KILL {number}")
