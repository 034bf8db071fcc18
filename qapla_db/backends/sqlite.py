"""SQLite, in files and in memory, with transactions that are what they say.

The driver's own transactions lose updates silently and ignore foreign keys.
The form here is the one that SQLAlchemy's documentation of the pysqlite
dialect describes ("Serializable isolation / Savepoints / Transactional DDL"),
with BEGIN IMMEDIATE: nothing is lost, who writes waits for who writes.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import PoolProxiedConnection

from qapla_db.backends.address import one_value, safe_url
from qapla_db.backends.base import NO_SETTINGS, Access, Backend
from qapla_db.backends.savepoints import quicken_savepoints
from qapla_db.backends.states import READ_ONLY, is_autocommit, is_sandboxed
from qapla_db.errors import InvalidArgument, ServerError, SessionConflict

__all__ = ["SQLiteBackend"]

_QUERY_ONLY = "qapla_db_query_only"
_BUSY = 5  # SQLITE_BUSY
_READ_ONLY_FILE = 8  # SQLITE_READONLY
_FILE_WAYS = (
    "lend the first session, commit it, or open the second one with session(read_only=True)"
)
_MEMORY_WAYS = "lend the first session, or close it"
_LIBRARIES = ("sqlalchemy.", "qapla_db.", "contextlib")

_TRUE = ("1", "true", "yes", "on")
_FILE_NAME = re.compile(r"(?P<directory>(?:file:)?(?:.*[/\\\\])?)[^./\\\\?]+(?P<ending>[^/\\\\]*)")


class SQLiteBackend(Backend):
    """SQLite 3.35 and newer."""

    name = "sqlite"
    default_driver = "pysqlite"
    is_server = False
    # SQLITE_BUSY, SQLITE_LOCKED and their extended forms
    retry_codes: ClassVar = frozenset({5, 6, 261, 262, 517})
    isolation_level = "SERIALIZABLE"
    begin_again = ("BEGIN",)

    def engine_defaults(self, url: sa.URL, label: str) -> dict[str, Any]:
        if self.is_volatile(url):
            return {
                "poolclass": OneConnectionPool,
                "pool_size": 1,
                "max_overflow": 0,
                "connect_args": {"check_same_thread": False},
            }
        return {"connect_args": {"timeout": 30}}

    def install(self, engine: Engine) -> None:
        guard = _WriterGuard(self.identity(engine.url)[1], volatile=self.is_volatile(engine.url))
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", guard.begin)
        event.listen(engine, "reset", _make_writable)
        quicken_savepoints(engine)

    def server_url(self, url: sa.URL) -> sa.URL:
        # the driver's file is of the directory in which the engine is built
        if self.is_volatile(url) or _is_uri(url):
            return url
        return url.set(database=str(_path(url).absolute()))

    def maintenance_url(self, url: sa.URL) -> sa.URL | None:
        return None

    def identity(self, url: sa.URL) -> tuple[str, str]:
        if self.is_volatile(url):
            return "memory", url.database or ":memory:"
        return "file", str(_path(url).resolve())

    def name_of(self, url: sa.URL) -> str:
        return ":memory:" if self.is_volatile(url) else _path(url).name.partition(".")[0]

    def renamed(self, url: sa.URL, name: str) -> sa.URL:
        # a file name at the end of a path, or of "file:" and what is behind its "?"
        database = url.database or ""
        found = _FILE_NAME.fullmatch(database)
        if self.is_volatile(url) or found is None:
            return url
        return url.set(database=f"{found['directory']}{name}{found['ending']}")

    def is_volatile(self, url: sa.URL) -> bool:
        database = url.database or ""
        if database in ("", ":memory:"):
            return True
        return _is_uri(url) and (database == "file::memory:" or url.query.get("mode") == "memory")

    def complete(self, url: sa.URL) -> sa.URL:
        if url.host:
            raise InvalidArgument(
                f"{safe_url(url)!r} has two slashes where SQLite has three before a relative "
                "file and four before an absolute one: sqlite:///FILE"
            )
        return super().complete(url)

    def is_plain(self, url: sa.URL, connect_args: Mapping[str, Any]) -> bool:
        return not (url.database or "").startswith("file:")

    def check_present(self, url: sa.URL, access: Access) -> None:
        if self.exists(url, None, access):
            return
        _refuse_directory(url, access)
        raise ServerError(
            f"the database {access.label!r} does not exist: there is no file {_path(url)}. Call "
            f"create() or run its migrations, or correct {access.key!r}"
        )

    def advice(self, key: str) -> str:
        return (
            f"Check that {key!r} names a file of SQLite, and that this process may write to it "
            "and to its directory"
        )

    def exists(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        with _explained(url, access, "looked for"):
            return self.is_volatile(url) or _path(url).is_file()

    def create(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        if self.is_volatile(url):
            return False
        _refuse_directory(url, access)
        with _explained(url, access, "created"):
            try:
                # through a link that leads nowhere yet
                path = _path(url).resolve()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(exist_ok=False)
            except FileExistsError:
                if not _path(url).is_file():
                    raise
                return False
        with self.administration(url, maintenance, access):
            return True

    def drop(self, url: sa.URL, maintenance: sa.URL | None, access: Access = NO_SETTINGS) -> bool:
        if self.is_volatile(url):
            return False
        with _explained(url, access, "dropped"):
            if not _path(url).is_file():
                return False
            # a log that outlives its database would be played into the next one; both are
            # where a link leads, which stays: who made it wants the next one there too
            path = _path(url).resolve()
            for ending in ("-wal", "-shm", "-journal", ""):
                Path(f"{path}{ending}").unlink(missing_ok=True)
            _writers.pop(self.identity(url)[1], None)  # who wrote is in nobody's way any more
            return True

    def error_code(self, error: BaseException) -> int | None:
        code = getattr(error, "sqlite_errorcode", None)
        return code if isinstance(code, int) else None

    def has_rolled_back(self, connection: Connection, error: BaseException) -> bool:
        # a full disk, an interruption, ON CONFLICT ROLLBACK ...; sqlite.org/lang_transaction.html
        dbapi: Any = connection.connection.dbapi_connection
        return not dbapi.in_transaction

    def orphan(self, connection: Any) -> None:
        connection.info.pop(_QUERY_ONLY, None)  # or it would be made writable at its return
        user = connection.fairy_ref and connection.fairy_ref()
        for holder in filter(None, (connection, user)):
            if holder.dbapi_connection is not None:
                holder.dbapi_connection = _ParentsConnection(holder.dbapi_connection)


class _ParentsConnection:
    """Stands in a forked child for a connection that the parent opened.

    SQLite allows neither to use nor to close one over a fork.
    """

    def __init__(self, real: object) -> None:
        self._real = real

    def rollback(self) -> None:
        """The parent's transaction goes on."""

    def close(self) -> None:
        """The parent's connection stays open."""

    def __getattr__(self, name: str) -> Any:
        raise SessionConflict(
            "this session was opened before a fork and its connection belongs to the parent "
            "process; open a new session in the child"
        )


class OneConnectionPool(pool.QueuePool):
    """The one connection of a database in memory, for one user after the other."""

    _holder: tuple[int, str, weakref.ref[PoolProxiedConnection]] | None = None

    def connect(self) -> PoolProxiedConnection:
        me = threading.get_ident()
        if self._holder is not None:
            thread, where, last = self._holder
            connection = last()
            if thread == me and connection is not None and connection.is_valid:
                raise _conflict("a database in memory", where, _caller(), ways=_MEMORY_WAYS)
        connection = super().connect()
        self._holder = me, _caller(), weakref.ref(connection)
        return connection


def _is_uri(url: sa.URL) -> bool:
    # the driver reads the query for a file: name alone, and only with uri=true
    asked = one_value(url.query.get("uri")).lower() in _TRUE
    return asked and (url.database or "").startswith("file:")


def _path(url: sa.URL) -> Path:
    database = url.database or ""
    if _is_uri(url):
        database = unquote(database.removeprefix("file:").partition("?")[0])
    return Path(database)


def _refuse_directory(url: sa.URL, access: Access) -> None:
    if os.path.isdir(_path(url)):
        raise ServerError(
            f"the database {access.label!r} cannot be {_path(url)}: that is a directory, and "
            f"SQLite keeps a database in a file; name one in {access.key!r}"
        )


@contextmanager
def _explained(url: sa.URL, access: Access, done: str) -> Iterator[None]:
    """Say which database and which setting an error of the file system is about."""
    try:
        yield
    except OSError as error:
        raise ServerError(
            f"the database {access.label!r} cannot be {done} at {_path(url)}: "
            f"{error.strerror} ({error.filename}). Correct {access.key!r}, or let this process "
            "write there"
        ) from error


def _prepare_connection(dbapi_connection: Any, record: object) -> None:
    # without this the driver begins transactions of its own, and too late
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    try:
        _use_log(cursor)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _use_log(cursor: Any) -> None:
    """Switch a file to the write-ahead log, while others may do the same.

    SQLite calls no busy handler for some of the locks of this switch and answers
    SQLITE_BUSY at once (https://sqlite.org/c3ref/busy_handler.html), so we wait here.
    """
    deadline = time.monotonic() + cursor.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
    while True:
        try:
            if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
            return
        except Exception as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == _READ_ONLY_FILE:
                return  # a file that may only be read stays as it is
            if code != _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.001, 0.02))  # two that met shall not meet again


def _make_writable(dbapi_connection: Any, record: Any, state: object) -> None:
    if record is not None and record.info.pop(_QUERY_ONLY, False):
        dbapi_connection.execute("PRAGMA query_only = OFF")


class _WriterGuard:
    """Begins the transactions of one database, and sees who would wait for itself.

    SQLite lets one transaction write at a time; the next waits. A thread that
    waits for its own other transaction would do so until the time-out.
    """

    def __init__(self, database: str, *, volatile: bool) -> None:
        self.database = database
        self.volatile = volatile

    def begin(self, connection: Connection) -> None:
        if is_sandboxed(connection) or is_autocommit(connection):
            return
        dbapi = connection.connection.dbapi_connection
        assert dbapi is not None
        if dbapi.isolation_level is not None:
            dbapi.isolation_level = None  # an earlier AUTOCOMMIT of this connection reset it
        if connection.get_execution_options().get(READ_ONLY):
            self._begin_reading(connection, dbapi)
        else:
            self._begin_writing(connection, dbapi)

    def _begin_reading(self, connection: Connection, dbapi: object) -> None:
        holder = _writers.get(self.database)
        if holder is not None and holder.connection is dbapi:
            holder.connection = None  # it wrote before, and only reads now
        info = connection.connection.info
        if not info.get(_QUERY_ONLY):
            info[_QUERY_ONLY] = True
            connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")

    def _begin_writing(self, connection: Connection, dbapi: object) -> None:
        me, here = threading.get_ident(), _caller()
        holder = _writers.get(self.database)
        if holder is not None and holder.thread == me and holder.is_open(dbapi):
            raise _conflict(
                f"the SQLite database {self.database!r}", holder.where, here, ways=_FILE_WAYS
            )
        if holder is not None and holder.connection is dbapi:
            # the pool gave the last writer's connection to us: it is no longer that writer's
            holder.connection = None
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if not self.volatile:
            _writers[self.database] = _Writer(me, here, dbapi)


class _Writer:
    """The transaction that writes to a file, or did last."""

    __slots__ = ("connection", "process", "thread", "where")

    def __init__(self, thread: int, where: str, connection: Any) -> None:
        self.process = os.getpid()
        self.thread = thread
        self.where = where
        self.connection = connection

    def is_open(self, other: Any) -> bool:
        if self.connection in (None, other) or self.process != os.getpid():
            return False
        try:
            return bool(self.connection.in_transaction)
        except Exception:  # it is closed
            return False


# one entry a file, whichever engines and names lead to it
_writers: dict[str, _Writer] = {}


def _conflict(database: str, first: str, second: str, *, ways: str) -> SessionConflict:
    return SessionConflict(
        f"two sessions of one thread at {database}: the transaction begun at {first} is still "
        f"open, so the one begun at {second} would wait for itself; {ways}"
    )


def _caller() -> str:
    """Name the line of the application that brought us here."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(_LIBRARIES):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "an unknown line"
