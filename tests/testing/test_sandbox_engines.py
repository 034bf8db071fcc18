"""Engines, connections, drivers and listeners of all kinds in a sandbox, and after it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.engine import Connection

from qapla_db.errors import InvalidArgument, SandboxError
from qapla_db.testing.sandboxes.sandbox import SandboxPool, sandbox
from tests.testing.world import Item, World, make_world, statements

INSERT = sa.insert(Item).values(name="one", amount=0)

# --- options of engines and connections


def test_dispose(world: World) -> None:
    """Disposing of the engine in the middle of a test changes nothing."""
    with sandbox(world):
        world.add("before")
        world.engine.dispose()
        world.add("after")
        assert ["after", "before"] == world.names()
    assert [] == world.names()


def test_autocommit(world: World) -> None:
    """Each statement of an autocommit connection counts at once, whatever comes after."""
    with sandbox(world):
        world.add("taken")
        engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(INSERT)
            assert ["one", "taken"] == world.names()
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(INSERT)
            assert 2 == connection.scalar(sa.select(sa.func.count()).select_from(Item))
            connection.rollback()
        with world.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.insert(Item).values(name="two", amount=0))
        assert ["one", "taken", "two"] == world.names()
    assert [] == world.really()


@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": pool.NullPool},
        {"pool_pre_ping": True},
        {"pool_size": 1, "max_overflow": 0},
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "SERIALIZABLE"},
        {"execution_options": {"isolation_level": "SERIALIZABLE"}},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_engines_of_all_kinds(world: World, options: dict[str, Any]) -> None:
    """However an engine is made, its commits are visible in the sandbox and gone after it."""
    other = make_world(world.kind, world.engine.url, **options)
    for _ in range(2):
        with sandbox(other):
            other.add("first")
            with other.session() as session:
                session.add(Item(name="second"))
                session.commit()
            assert ["first", "second"] == other.names()
        assert [] == world.really()
    if "AUTOCOMMIT" in options.values() and world.kind != "sqlite":
        with other.engine.connect() as connection:
            connection.execute(INSERT)
        assert ["one"] == world.really()
        world.wipe()
    other.engine.dispose()


@pytest.mark.parametrize(
    "connect_args",
    [
        {},
        pytest.param(
            {"autocommit": False},
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="a mode of Python 3.12"),
        ),
    ],
)
def test_sqlite_with_transactions_of_the_driver(
    sqlite: World, connect_args: dict[str, Any]
) -> None:
    """An engine that leaves transactions to the driver is isolated as well."""
    engine = sa.create_engine(sqlite.engine.url, connect_args=connect_args)
    other = World("sqlite", "main", engine, sqlite.outside)
    for _ in range(2):
        with sandbox(other):
            other.add("first")
            with other.session() as session:
                session.add(Item(name="undone"))
                session.flush()
            assert ["first"] == other.names()
        assert [] == sqlite.really()
    other.add("for good")
    assert ["for good"] == sqlite.really()
    sqlite.wipe()
    engine.dispose()


def test_engines_that_share_the_pool(world: World) -> None:
    """An engine with other options, made before or during the sandbox, is in it too."""
    before = world.engine.execution_options(logging_token="before")
    with sandbox(world):
        during = world.engine.execution_options(logging_token="during")
        for engine in (before, during):
            with engine.begin() as connection:
                connection.execute(sa.insert(Item).values(name=f"by {engine is before}", amount=0))
        assert ["by False", "by True"] == world.names()
    assert world.engine.pool is before.pool


def test_a_sandbox_around_an_engine_with_options(world: World) -> None:
    """A sandbox of an engine that shares its pool is one of all that do."""
    other = World(
        world.kind, world.name, world.engine.execution_options(logging_token="x"), world.outside
    )
    with sandbox(other):
        world.add("one")
        assert ["one"] == other.names()
        autocommit = world.engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            connection.execute(sa.insert(Item).values(name="two", amount=0))
        assert ["one", "two"] == other.names()
    assert [] == world.names()


def test_an_isolation_level_per_connection(world: World) -> None:
    """Asking for an isolation level is no error, and the level of the pool's connections stays."""
    with world.engine.connect() as connection:
        before = connection.get_isolation_level()
    options = {"postgresql_deferrable": True} if world.kind == "postgresql" else {}
    with sandbox(world):
        engine = world.engine.execution_options(isolation_level="SERIALIZABLE", **options)
        with engine.begin() as connection:
            connection.execute(INSERT)
        assert ["one"] == world.names()
    with world.engine.connect() as connection:
        assert before == connection.get_isolation_level()


def test_an_engine_that_speaks_first(world: World) -> None:
    """A listener that runs a statement on every new connection is no obstacle."""
    other = make_world(world.kind, world.engine.url)

    def speak(connection: Connection) -> None:
        connection.scalar(sa.select(1))
        connection.rollback()  # SQLAlchemy 2.0 asks for it: its Session would commit nothing

    event.listen(other.engine, "engine_connect", speak)
    with sandbox(other):
        other.add("one")
        assert ["one"] == other.names()
    assert [] == world.really()
    other.engine.dispose()


def test_a_database_in_memory_that_is_in_use() -> None:
    """Where there is only one connection, whose transaction is open, a sandbox is refused."""
    url = sa.make_url("sqlite://")
    world = make_world("sqlite", url, poolclass=sa.StaticPool)
    Item.metadata.create_all(world.engine)
    with world.engine.connect() as connection:
        connection.execute(INSERT)
        with pytest.raises(SandboxError, match=f"{world.name}.*one connection"), sandbox(world):
            raise AssertionError("never entered")
    assert [] == world.names()
    world.engine.dispose()


def test_invalidate(world: World) -> None:
    """An invalidated connection loses its transaction and then works on."""
    with sandbox(world):
        world.add("before")
        with world.engine.connect() as connection:
            connection.execute(INSERT)
            connection.invalidate()
            connection.rollback()
            assert 1 == connection.scalar(sa.select(sa.func.count()).select_from(Item))
            connection.execute(INSERT)
            connection.commit()
        assert ["before", "one"] == world.names()


def test_detach(world: World) -> None:
    """A detached connection goes on with its transaction."""
    with sandbox(world):
        with world.engine.connect() as connection:
            connection.execute(INSERT)
            connection.detach()
            connection.commit()
        assert ["one"] == world.names()


def test_two_phase_is_refused(postgresql: World, mariadb: World) -> None:
    """A two-phase session is refused with a message that names the database."""
    for world in (postgresql, mariadb):
        with sandbox(world):
            with world.session(twophase=True) as session:
                session.add(Item(name="two"))
                with pytest.raises(SandboxError, match=f"{world.name}.*two-phase"):
                    session.flush()
            assert [] == world.names()


def test_asyncio_engines_are_refused() -> None:
    """An engine with an asyncio driver is refused before anything is opened."""
    aio = pytest.importorskip("sqlalchemy.ext.asyncio")
    engine = aio.create_async_engine("postgresql+psycopg://nobody@localhost:1/nothing").sync_engine
    with (
        pytest.raises(InvalidArgument, match=r"'main'.*asyncio.*synchronous"),
        sandbox(World("postgresql", "main", engine, engine)),
    ):
        raise AssertionError("never entered")


# --- drivers and listeners


def test_an_engine_in_autocommit(world: World) -> None:
    """Without transactions a statement counts at once, and a close takes nothing back."""
    other = make_world(world.kind, world.engine.url, isolation_level="AUTOCOMMIT")
    with sandbox(other):
        with other.engine.connect() as connection:
            connection.execute(INSERT)
            assert ["one"] == other.names()
        assert ["one"] == other.names()
    assert [] == world.really()
    other.engine.dispose()


@pytest.mark.parametrize("end", ["close", "rollback", "commit"])
def test_copy_by_the_driver_in_autocommit(postgresql: World, end: str) -> None:
    """What the driver's cursor does without a transaction stays, however it ends."""
    engine = postgresql.engine.execution_options(isolation_level="AUTOCOMMIT")
    with sandbox(postgresql):
        with engine.connect() as connection:
            if end != "close":
                connection.begin()
            raw: Any = connection.connection
            with raw.cursor().copy("COPY item (name, amount) FROM STDIN") as copy:
                copy.write_row(("copied", 1))
            getattr(connection, end)()
        assert ["copied"] == postgresql.names()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_copy_by_the_driver(postgresql: World, end: str) -> None:
    """COPY through the driver's cursor belongs to the transaction of its session."""
    with sandbox(postgresql):
        with postgresql.session() as session:
            raw: Any = session.connection().connection
            with raw.cursor().copy("COPY item (name, amount) FROM STDIN") as copy:
                copy.write_row(("copied", 1))
            getattr(session, end)()
        assert (["copied"] if end == "commit" else []) == postgresql.names()


def test_copy_by_the_driver_below_a_reader(postgresql: World) -> None:
    """What was copied stays when another session, which began to read later, is closed."""
    with sandbox(postgresql):
        with postgresql.session() as session, postgresql.session() as reader:
            session.scalars(sa.select(Item.name)).all()
            reader.scalars(sa.select(Item.name)).all()
            raw: Any = session.connection().connection
            with raw.cursor().copy("COPY item (name, amount) FROM STDIN") as copy:
                copy.write_row(("copied", 1))
            reader.close()
            session.commit()
        assert ["copied"] == postgresql.names()


BY_DRIVER = "INSERT INTO item (name, amount) VALUES ('driver', 0)"


def _execute(connection: Connection) -> None:
    dbapi: Any = connection.connection.dbapi_connection
    dbapi.execute(BY_DRIVER)


def _execute_and_commit(connection: Connection) -> None:
    _execute(connection)
    connection.commit()


@pytest.mark.parametrize("use", [_execute, _execute_and_commit])
@pytest.mark.parametrize("before", [World.names, lambda world: world.add("before")])
def test_the_driver_behind_the_back(
    postgresql: World, use: Callable[[Connection], None], before: Callable[[World], object]
) -> None:
    """What is done on the driver's connection itself is undone by no other session."""
    with sandbox(postgresql):
        before(postgresql)
        with postgresql.engine.connect() as connection:
            use(connection)
            assert "driver" in postgresql.names()
            assert "driver" in postgresql.names()


def test_a_cursor_of_the_driver_that_is_kept(postgresql: World) -> None:
    """What a kept cursor of the driver does in later transactions is undone by no other session."""
    with sandbox(postgresql), postgresql.engine.connect() as connection:
        cursor = connection.connection.cursor()
        connection.commit()
        assert [] == postgresql.names()
        cursor.execute(BY_DRIVER)
        connection.commit()
        assert ["driver"] == postgresql.names()
        assert ["driver"] == postgresql.names()


def test_the_isolation_level_of_an_engine(postgresql: World) -> None:
    """The transaction of a sandbox has the isolation level of its engine."""
    url = postgresql.engine.url
    world = make_world(postgresql.kind, url, isolation_level="REPEATABLE READ")
    with sandbox(world), world.session() as session:
        found = session.scalar(sa.text("SHOW transaction_isolation"))
    world.engine.dispose()
    assert "repeatable read" == found


def test_a_connection_that_died_in_the_pool(postgresql: World, mariadb: World) -> None:
    """A sandbox does not begin on a connection that the server has ended since the last one."""
    for world, kill in ((postgresql, "SELECT pg_terminate_backend({})"), (mariadb, "KILL {}")):
        number = "pg_backend_pid()" if world is postgresql else "connection_id()"
        with world.engine.connect() as connection:
            pid = connection.scalar(sa.text(f"SELECT {number}"))
        with world.outside.connect() as connection:
            connection.exec_driver_sql(kill.format(pid))
        with sandbox(world):
            world.add("one")
            assert ["one"] == world.names()
        assert [] == world.really()


def test_a_failure_on_a_cursor_of_the_driver(postgresql: World) -> None:
    """An error on the driver's cursor is over with the rollback of its session."""
    with sandbox(postgresql):
        postgresql.add("before")
        with postgresql.session() as session:
            with pytest.raises(Exception, match="no_such"):
                session.connection().connection.cursor().execute("SELECT no_such")
            assert ["before"] == postgresql.names()
            session.rollback()
            session.add(Item(name="after"))
            session.commit()
        assert ["after", "before"] == postgresql.names()


def test_alembic_operations(postgresql: World, sqlite: World) -> None:
    """A migration step inside a test works, and leaves no trace."""
    migration = pytest.importorskip("alembic.migration")
    operations = pytest.importorskip("alembic.operations")
    for world in (postgresql, sqlite):
        with sandbox(world):
            with world.engine.begin() as connection:
                context = migration.MigrationContext.configure(connection)
                column: sa.Column[str] = sa.Column("note", sa.String(9))
                operations.Operations(context).add_column("item", column)
            with world.engine.begin() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO item (name, amount, note) VALUES ('a',1,'b')"
                )
            assert ["a"] == world.names()
        columns = [one["name"] for one in sa.inspect(world.outside).get_columns("item")]
        assert ["id", "name", "amount"] == columns


def test_listeners_of_the_application_see_what_they_always_see(world: World) -> None:
    """The statements of the sandbox itself are hidden, so that queries can be counted."""

    def work() -> None:
        with world.session() as session:
            session.add(Item(name="counted"))
            with session.begin_nested():
                session.add(Item(name="counted too"))
            session.rollback()

    with statements(world.engine) as without:
        work()
    with sandbox(world), statements(world.engine) as within:
        work()
    assert [one for one in without if not one.startswith("BEGIN")] == within


def test_listeners_of_the_pool_are_called(world: World) -> None:
    """Who listens for checkouts and checkins is told, with what he stored at the connect."""
    engine = make_world(world.kind, world.engine.url).engine
    calls = []

    @event.listens_for(engine, "connect")
    def connected(connection: object, record: Any) -> None:
        calls.append("connect")
        record.info["mine"] = "kept"

    @event.listens_for(engine, "checkout")
    def checked_out(connection: object, record: Any, proxy: object) -> None:
        calls.append(f"out {record.info['mine']}")

    @event.listens_for(engine, "checkin")
    def checked_in(connection: object, record: Any) -> None:
        calls.append("in")

    with sandbox(World(world.kind, "main", engine, world.outside)):
        calls.clear()
        with engine.connect() as connection:
            connection.execute(INSERT)
            assert "kept" == connection.info["mine"]
        assert ["out kept", "in"] == calls
    engine.dispose()


def test_an_interrupted_statement(postgresql: World) -> None:
    """A statement that a signal interrupts in the middle leaves the sandbox usable."""

    class TimeIsUpError(Exception):
        pass

    def ring(*_: object) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with sandbox(postgresql):
            postgresql.add("before")
            with postgresql.session() as session:
                session.add(Item(name="interrupted"))
                session.flush()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(TimeIsUpError):
                    session.execute(sa.text("SELECT pg_sleep(60)"))
                session.rollback()
            assert ["before"] == postgresql.names()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- what the engine is afterwards


def _state(engine: sa.Engine) -> tuple[object, ...]:
    listeners = {
        name: tuple(getattr(engine.dispatch, name))
        for name in ("begin", "commit", "rollback", "engine_connect", "before_cursor_execute")
    }
    return engine.pool, dict(vars(engine.dialect)), listeners, engine._has_events


@pytest.mark.parametrize("fails", [False, True])
def test_the_engine_is_as_before(world: World, fails: bool) -> None:
    """Pool, dialect and listeners of an engine are the same afterwards, also after an error."""
    with world.session() as session:
        session.add(Item(name="warms the caches of the dialect"))
        session.flush()
        session.scalars(sa.select(Item.name)).all()
    before = _state(world.engine)
    connections = set()
    event.listen(world.engine, "checkout", lambda raw, *_: connections.add(id(raw)))
    try:
        with sandbox(world):
            assert isinstance(world.engine.pool, SandboxPool)
            world.add("one")
            if fails:
                raise LookupError
    except LookupError:
        assert fails
    assert before == _state(world.engine)
    world.names()
    assert 1 == len(connections), "the connection of the pool was replaced"
    raw: Any = world.engine.raw_connection()
    if world.kind == "postgresql":
        assert raw.autocommit is False
    raw.close()


def test_the_connections_of_the_pool_stay_usable(world: World) -> None:
    """A connection that was out before the sandbox works for real, in it and after it."""
    outside = world.engine.connect()
    assert 0 == outside.scalar(sa.select(sa.func.count()).select_from(Item))
    outside.commit()
    with sandbox(world):
        world.add("inside")
        if world.kind != "sqlite":  # whose one writer is the sandbox
            outside.execute(sa.insert(Item).values(name="for good", amount=0))
            outside.commit()
            assert ["for good"] == world.really()
            outside.execution_options(isolation_level="SERIALIZABLE")
            assert "SERIALIZABLE" == outside.get_isolation_level()
            outside.execute(sa.insert(Item).values(name="undone", amount=0))
            outside.rollback()
            assert ["for good"] == world.really()
    outside.execute(sa.delete(Item))
    outside.commit()
    outside.close()
    assert [] == world.really()


def test_entering_twice_is_an_error(world: World) -> None:
    """A sandbox in a sandbox of the same engine is refused, and the outer one goes on."""
    with sandbox(world):
        world.add("one")
        with pytest.raises(SandboxError, match=f"{world.name}.*sandbox already"), sandbox(world):
            raise AssertionError("never entered")
        assert ["one"] == world.names()
    assert [] == world.really()


def test_what_is_open_at_the_end_is_cut_off(world: World) -> None:
    """A session that outlives its sandbox can neither keep its work nor use the connection."""
    session = world.session()
    with sandbox(world):
        session.add(Item(name="open"))
        session.flush()
    with pytest.raises(sa.exc.StatementError, match=f"{world.name}.*has ended"):
        session.execute(sa.select(Item.name))
    with pytest.raises(SandboxError, match="has ended"):
        session.commit()
    session.close()
    world.names()
    assert [] == world.really()


def test_checked_out_connections_are_counted(world: World) -> None:
    """The pool of a sandbox tells how many connections are out, and forgets none."""
    with sandbox(world):
        sandboxed = world.engine.pool
        assert isinstance(sandboxed, SandboxPool)
        with world.engine.connect(), world.engine.connect():
            assert 2 == sandboxed.checkedout()
        with world.engine.connect() as connection:
            connection.invalidate()
        assert 0 == sandboxed.checkedout()
        assert "0" in sandboxed.status()


def test_a_database_that_cannot_be_reached(world: World) -> None:
    """The error of the connection comes out, and the engine is as it was."""
    if world.kind == "sqlite":
        url = sa.make_url("sqlite:////nowhere/at/all.sqlite3")
    else:
        url = world.engine.url.set(database="no_such_database")
    engine = make_world(world.kind, url).engine
    before = engine.pool
    with (
        pytest.raises(sa.exc.OperationalError),
        sandbox(World(world.kind, "main", engine, engine)),
    ):
        raise AssertionError("never entered")
    assert before is engine.pool
