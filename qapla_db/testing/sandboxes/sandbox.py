"""Isolation of tests at the level of the connection pool.

While a sandbox is on, its engine has one connection, in a transaction that is
rolled back at the end. Every SQLAlchemy transaction on that engine, of whatever
thread, is a savepoint in it (:mod:`qapla_db.testing.sandboxes.lanes`): the code under
test begins, commits and rolls back as ever, and afterwards nothing has happened.

What no outer transaction can show: ``now()`` that advances, locks between
sessions, isolation levels (uncommitted rows of other sessions are visible),
sequences that were rolled back, VACUUM and CREATE DATABASE, constraints that
SQLite defers, and server-side cursors, whose rows are fetched at once here. On
MariaDB DDL commits for real. Such tests need real commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any, Protocol
from weakref import ref

from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine, ExecutionContext
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.pool import Pool, PoolProxiedConnection

from qapla_db.errors import InvalidArgument, SandboxBroken, SandboxError
from qapla_db.testing.sandboxes.drivers import pin, supports
from qapla_db.testing.sandboxes.lanes import Lanes
from qapla_db.testing.sandboxes.pinned import PinnedConnection
from qapla_db.testing.sandboxes.pool import SandboxPool, checkout_of
from qapla_db.testing.sandboxes.savepoints import REMEDY, Savepoints

__all__ = ["Sandbox", "SandboxPool", "Sandboxable", "sandbox"]


WAIT = 5.0
"""Seconds that a thread waits for the transaction of another one."""


class Sandboxable(Protocol):
    """What a sandbox can be put around; a :class:`~qapla_db.database.Database` is one."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Engine: ...


@contextmanager
def sandbox(database: Sandboxable, *, wait: float = WAIT) -> Iterator[Sandbox]:
    """Isolate what happens to a database inside a ``with`` block.

    ::

        with sandbox(app.dbs["main"]):
            client.post("/airports", ...)  # commits
            assert 1 == client.get("/airports").json["total"]
        # nothing has happened

    Connections that are still out at the end are cut off.

    :param database: a prepared database, or whatever has ``name`` and ``engine``.
    :param wait: seconds that a thread waits for the transaction of another thread.
    :raises InvalidArgument: there is no sandbox for this driver.
    :raises SandboxError: the database is in a sandbox already.
    :raises SandboxConflict: transactions wrote in an order that one connection cannot show.
    :raises SandboxBroken: at the end, when something was committed for real.
    """
    with Sandbox(database, wait) as box:
        yield box


class Sandbox:
    """A sandbox that is on, until the end of a block; see :func:`sandbox`.

    :param is_repaired: who makes it repairs what could not be undone.
    :ivar problem: what went wrong, after its end.
    """

    def __init__(
        self, database: Sandboxable, wait: float = WAIT, *, is_repaired: bool = False
    ) -> None:
        self.name = database.name
        self.problem: SandboxError | None = None
        self._engine = engine = database.engine
        self._wait = wait
        _refuse(self.name, engine)
        self._connection, self._pinned = _begun(engine, self.name)
        try:
            self._savepoints = Savepoints(self.name, self._pinned, is_repaired=is_repaired)
            self._lanes = Lanes(
                self._savepoints,
                self._pinned,
                wait=wait,
                autocommit=_is_autocommit(engine.dialect) or self._pinned.autocommits,
            )
            self._pool = SandboxPool(self._connection.connection, engine, self._lanes)
            self._installed = ExitStack()
            self._installed.enter_context(_lanes_installed(engine, self._lanes, self._pinned))
            self._pool_installed = ExitStack()
            self._pool_installed.enter_context(pool_installed(engine, self._pool))
        except BaseException:
            self._connection.invalidate()
            self._connection.close()
            raise

    def __repr__(self) -> str:
        return f"<sandbox of {self.name!r}>"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.problem = problem = self._close()
        if problem is None or problem is error:
            return
        if error is None:
            raise problem
        error.add_note(str(problem))

    def _close(self) -> SandboxError | None:
        """Make the engine what it was, roll everything back, and return what went wrong."""
        # connections that are out stay in their lanes until they are cut off
        self._pool_installed.close()
        if not self._have_turn():
            self._installed.close()
            self._connection.detach()
            return SandboxError(
                f"a thread still runs a statement on the database {self.name!r} and cannot be "
                "interrupted; join the threads of a test before it ends"
            )
        try:
            intact = self._lanes.close()
            self._pool.cut_off()
        finally:
            self._installed.close()
            self._lanes.turn.release()
            if self._pinned.lost:
                self._connection.invalidate()
            self._connection.close()
            if self._pool.is_disposed:
                # as by close() of an application, after which nobody has the engine any more
                self._engine.dispose()
        if not intact and self._savepoints.broken is None:
            return self._broken()
        return self._savepoints.broken or self._lanes.conflict

    def _have_turn(self) -> bool:
        if self._lanes.turn.acquire(timeout=self._wait):
            return True
        # the second try tells whether it helped
        with suppress(Exception):
            self._pinned.interrupt(self._engine)
        return self._lanes.turn.acquire(timeout=self._wait)

    def _broken(self) -> SandboxBroken:
        if self._lanes.was_reading:
            return SandboxBroken(
                f"database {self.name!r}: at the end of the sandbox a COPY, or a cursor of the "
                "driver that fetches row by row, had rows to come, so that the connection had to "
                f"be closed; end it before the test does, or {REMEDY}"
            )
        if self._pinned.lost:
            return SandboxBroken(
                f"the connection of the sandbox of the database {self.name!r} was lost, and what "
                "the test had committed with it; give a test that ends connections real "
                "commits instead of the sandbox"
            )
        return self._savepoints.ended_by("a commit or rollback on the driver's own connection")


def _begun(engine: Engine, name: str) -> tuple[Connection, PinnedConnection]:
    """Take a connection of an engine and begin the outer transaction on it."""
    with suppress(engine.dialect.loaded_dbapi.Error), _unasked(engine.pool):
        return _begin(engine, name)
    return _begin(engine, name)


def _begin(engine: Engine, name: str) -> tuple[Connection, PinnedConnection]:
    connection = engine.connect()
    try:
        # a listener of the application may have begun a transaction
        connection.commit()
        return connection, pin(connection, name)
    except SandboxError:
        connection.close()
        raise
    except BaseException:
        connection.invalidate()
        connection.close()
        raise


@contextmanager
def _unasked(pool: Pool) -> Iterator[None]:
    """Let a pool not ask first whether a connection is alive: to begin on it asks that, too."""
    asks, pool._pre_ping = pool._pre_ping, False
    try:
        yield
    finally:
        pool._pre_ping = asks


def _refuse(name: str, engine: Engine) -> None:
    if isinstance(engine.pool, SandboxPool):
        raise SandboxError(
            f"the database {name!r} is in a sandbox already; one is enough, for everything "
            "in it is undone at its end"
        )
    dialect = engine.dialect
    if not supports(dialect):
        asynchronous = " (asyncio)" if dialect.is_async else ""
        raise InvalidArgument(
            f"there is no sandbox for the database {name!r} on "
            f"{dialect.name}+{dialect.driver}{asynchronous}; use psycopg, PyMySQL or SQLite "
            "with a synchronous engine, or give its tests real commits"
        )


def _is_autocommit(dialect: Dialect) -> bool:
    return getattr(dialect, "_on_connect_isolation_level", None) == "AUTOCOMMIT"


def root_engine(engine: Engine) -> Engine:
    """Return the engine that an engine with options of its own shares its pool with."""
    while isinstance(engine, OptionEngine):
        engine = engine._proxied
    return engine


@contextmanager
def pool_installed(engine: Engine, pool: Pool) -> Iterator[None]:
    """Make an engine, and every engine that shares its pool, use another pool."""
    root = root_engine(engine)
    original = root.pool
    root.pool = pool
    try:
        yield
    finally:
        root.pool = original


@contextmanager
def _lanes_installed(engine: Engine, lanes: Lanes, pinned: PinnedConnection) -> Iterator[None]:
    """Make what connections of the pool of a sandbox do happen in lanes."""
    _listen()
    dialect = engine.dialect
    with _replaced(dialect, _replacements(dialect, lanes, pinned)):
        yield


@cache
def _listen() -> None:
    # once, for to take a listener away disturbs the threads that just call it
    event.listen(Engine, "engine_connect", _connected, insert=True)


def _connected(connection: Connection) -> None:
    checkout = checkout_of(connection.connection)
    if checkout is not None:
        checkout.connection = ref(connection)


@contextmanager
def _replaced(target: object, replacements: Mapping[str, object]) -> Iterator[None]:
    """Set attributes of an object, and restore it exactly."""
    own = vars(target)
    before = {name: own[name] for name in replacements if name in own}
    own.update(replacements)
    try:
        yield
    finally:
        for name in replacements:
            own.pop(name, None)
        own.update(before)


def _replacements(dialect: Dialect, lanes: Lanes, pinned: PinnedConnection) -> dict[str, object]:
    """Make the methods of a dialect whose place the lanes take.

    They pass on what concerns a connection of the engine's own pool.
    """
    do_commit, do_rollback = dialect.do_commit, dialect.do_rollback
    do_begin_twophase = dialect.do_begin_twophase

    def commit(connection: PoolProxiedConnection) -> None:
        checkout = checkout_of(connection)
        if checkout is None:
            do_commit(connection)
        else:
            lanes.commit(checkout)

    def rollback(connection: PoolProxiedConnection) -> None:
        checkout = checkout_of(connection)
        if checkout is None:
            do_rollback(connection)
        else:
            lanes.rollback(checkout)

    def begin_twophase(connection: Connection, xid: object) -> None:
        if checkout_of(connection.connection) is not None:
            raise SandboxError(
                f"the database {lanes.database!r} is in a sandbox, where there is no two-phase "
                f"commit; {REMEDY}"
            )
        do_begin_twophase(connection, xid)

    replacements: dict[str, object] = {
        "do_commit": commit,
        "do_rollback": rollback,
        "do_begin_twophase": begin_twophase,
        # the connection is everybody's: nobody may leave rows unread on it
        "supports_server_side_cursors": False,
    }
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        replacements[name] = _executing(getattr(dialect, name), lanes)
    get_driver_connection = dialect.get_driver_connection

    def expose(dbapi_connection: Any) -> Any:
        if dbapi_connection is pinned.raw:
            pinned.expose()
        return get_driver_connection(dbapi_connection)

    replacements["get_driver_connection"] = expose
    for name in ("set_isolation_level", "set_readonly", "set_deferrable"):
        if hasattr(dialect, name):
            replacements[name] = _sparing(getattr(dialect, name), pinned.raw)
    return replacements


def _executing(original: Callable[..., None], lanes: Lanes) -> Callable[..., None]:
    def execute(cursor: Any, statement: str, *rest: Any) -> None:
        context = rest[-1] if rest else None
        checkout = None
        if isinstance(context, ExecutionContext):
            checkout = checkout_of(context.root_connection.connection)
        if checkout is None:
            original(cursor, statement, *rest)
        else:
            parameters = rest[0] if len(rest) > 1 else None
            lanes.execute(
                checkout, statement, lambda text: original(cursor, text, *rest), parameters, cursor
            )

    return execute


def _sparing(original: Callable[[Any, Any], None], raw: object) -> Callable[[Any, Any], None]:
    def set_unless_pinned(dbapi_connection: Any, value: Any) -> None:
        if dbapi_connection is not raw:
            original(dbapi_connection, value)

    return set_unless_pinned
