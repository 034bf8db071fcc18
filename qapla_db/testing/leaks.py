"""What a test leaves behind: connections that are checked out, threads that run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any
from weakref import ReferenceType, ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from qapla_db.database import Database
from qapla_db.errors import Leak
from qapla_db.testing.listening import Listeners
from qapla_db.testing.places import UNKNOWN, place
from qapla_db.testing.sandboxes.statements import without_passwords

__all__ = ["GRACE", "Watch"]

GRACE = 1.0
"""Seconds that other threads have to give back what they are about to give back."""

SHOWN = 200
"""Characters of a statement that a message shows."""

_HELD = "qapla_db_held"


@dataclass(eq=False, slots=True)
class Held:
    """A connection that is checked out."""

    pool: ReferenceType[Pool]
    fairy: ReferenceType[PoolProxiedConnection]
    place: str
    thread: str
    dbapi: Any
    sql: str | None = None


class Watch:
    """Knows who has connections of which pool; of a whole run, see :meth:`nothing_left`."""

    def __init__(self) -> None:
        self._out: set[Held] = set()
        self._lock = threading.Lock()
        _listen()
        _watching.add(self)

    def close(self) -> None:
        """Watch no longer."""
        _watching.remove(self)

    @contextmanager
    def nothing_left(
        self, databases: Iterable[Database], *, allowed_threads: Iterable[str] = ()
    ) -> Iterator[None]:
        """Fail where a block leaves connections of databases checked out, or threads running.

        :param databases: whose connections.
        :param allowed_threads: beginnings of the names of threads that may go on.
        :raises Leak: an AssertionError that names each connection with the line that took
            it, its process on the server and its last statement, and each thread with the
            line where it is. What the block itself raises passes.
        """
        watched = list(databases)
        with self._lock:
            before = set(self._out)
        threads, allowed = set(threading.enumerate()), tuple(allowed_threads)
        yield

        def look() -> list[str]:
            return [
                *self._connections(watched, before),
                *_threads(set(threading.enumerate()) - threads, allowed),
            ]

        found = look()
        if not found:
            return
        deadline, pause = time.monotonic() + GRACE, threading.Event()
        while found and time.monotonic() < deadline:
            pause.wait(0.01)
            found = look()
        if found:
            raise Leak("this test leaves behind:\n" + "\n".join(f"  - {one}" for one in found))

    def _connections(self, databases: list[Database], before: set[Held]) -> Iterator[str]:
        with self._lock:
            out = self._out - before
        for one in out:
            pool, fairy = one.pool(), one.fairy()
            if pool is None or fairy is None or not fairy.is_valid:
                continue
            for database in databases:
                if database.has_pool(pool):
                    yield _described(one, database)

    # --- what is heard

    def took(self, held: Held) -> None:
        """Note that a connection was taken."""
        with self._lock:
            self._out.add(held)

    def gave_back(self, held: Held) -> None:
        """Note that a connection was given back."""
        with self._lock:
            self._out.discard(held)


_watching: Listeners[Watch] = Listeners()


@cache
def _listen() -> None:
    event.listen(Pool, "checkout", _check_out)
    event.listen(Pool, "checkin", _check_in)
    event.listen(Engine, "before_cursor_execute", _execute)


def _check_out(dbapi: Any, record: ConnectionPoolEntry, fairy: PoolProxiedConnection) -> None:
    watches = _watching.now
    if not watches:
        return
    thread = threading.current_thread().name
    held = Held(ref(fairy._pool), ref(fairy), place(), thread, dbapi)
    record.info[_HELD] = held
    for watch in watches:
        watch.took(held)


def _check_in(dbapi: object, record: ConnectionPoolEntry) -> None:
    held = record.info.pop(_HELD, None)
    if held is not None:
        for watch in _watching.now:
            watch.gave_back(held)


def _execute(connection: Connection, cursor: object, sql: str, *rest: object) -> None:
    held: Held | None = connection.connection.info.get(_HELD)
    if held is not None:
        held.sql = sql


def _described(one: Held, database: Database) -> str:
    pid = _pid(one.dbapi)
    process = "" if pid is None else f" (process {pid} on the server)"
    last = (
        "none of SQLAlchemy"
        if one.sql is None
        else " ".join(without_passwords(one.sql).split())[:SHOWN]
    )
    return (
        f"a connection of the database {database.name!r}{process}, taken by {one.place} in the "
        f"thread {one.thread!r} and not given back; its last statement: {last}. Close its session, "
        f"as 'with app.dbs[{database.name!r}].session() as session' does by itself"
    )


def _threads(started: set[threading.Thread], allowed: tuple[str, ...]) -> Iterator[str]:
    frames = sys._current_frames()
    for one in started:
        if not one.is_alive() or one.name.startswith(allowed):
            continue
        frame = frames.get(one.ident or 0)
        yield (
            f"the thread {one.name!r}, which runs {_target(one)} and is at {_line(frame)}. End it "
            "and join() it, or let threads of such names be: ALLOWED_THREADS of a class, "
            "allowed_threads of fixtures_for()"
        )


def _target(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None) or type(thread).run
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"


def _line(frame: FrameType | None) -> str:
    if frame is None:
        return "its end"
    found = place(frame)
    if found != UNKNOWN:
        return found
    # a server waits in libraries alone
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _pid(dbapi: Any) -> object:
    with suppress(Exception):
        if hasattr(dbapi, "thread_id"):  # PyMySQL, mysqlclient
            return dbapi.thread_id()
        return dbapi.info.backend_pid  # psycopg, psycopg2
    return None
