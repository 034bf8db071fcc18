"""Scenarios of one test that the sandbox must show as a server would, or say that it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import orm

from qapla_db import Database
from qapla_db.backends import get_backend
from qapla_db.errors import SandboxBroken, SandboxConflict
from qapla_db.testing import SandboxWarning
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.shop import (
    EventWriteDriver,
    Order,
    OrderReadDriver,
    OrderWriteDriver,
    Shop,
    make_shop,
    names,
)
from tests.testing.world import Item, World, by_driver, in_thread, sandbox_that_ends_with

SERVERS = ["postgresql", "sqlite", "mariadb"]
PAIRS = [(main, audit) for main in SERVERS for audit in SERVERS]


@pytest.fixture(params=PAIRS, ids="-".join)
def shop(request: pytest.FixtureRequest, fresh_url: Callable[[str], sa.URL]) -> Iterator[Shop]:
    """An application with two databases, on each pair of servers."""
    urls = dict(zip(("main", "audit"), map(fresh_url, request.param), strict=True))
    for url in urls.values():
        backend = get_backend(url)
        assert backend is not None
        backend.create(backend.complete(url), None)
    with make_shop(urls) as made:
        yield made


# --- two databases


def test_two_databases_of_all_servers(shop: Shop) -> None:
    """Everything that writes to either of two databases is seen in its own, and gone."""
    for _ in range(2):
        with ExitStack() as stack:
            for database in shop.dbs.values():
                stack.enter_context(sandbox(database))
            _write_in_all_ways(shop.dbs["main"])
            with shop.dbs["audit"].transaction() as audit:
                EventWriteDriver(audit).create(name="event")
            in_thread(lambda: _write_in_all_ways(shop.dbs["main"], suffix=" of a thread"))()
            ways = ["begin", "bulk 1", "bulk 2", "driver", "raw", "stream", "upserted"]
            both = [name + suffix for name in ways for suffix in ("", " of a thread")]
            assert sorted(both) == names(shop.dbs["main"])
            assert ["event"] == names(shop.dbs["audit"])
        assert {"main": [], "audit": []} == shop.really()


def _write_in_all_ways(database: Database, suffix: str = "") -> None:
    with database.transaction() as session:
        OrderWriteDriver(session).create(name=f"driver{suffix}")
    with database.session() as session:
        # COPY, where the server has it
        rows = [{"name": f"bulk {number}{suffix}"} for number in (1, 2)]
        assert 2 == OrderWriteDriver(session).bulk_insert(rows)
        session.commit()
    with database.session() as session:
        OrderWriteDriver(session).upsert([{"name": f"upserted{suffix}"}] * 2, by="name")
        session.commit()
    with database.engine.begin() as connection:
        connection.execute(sa.insert(Order).values(name=f"begin{suffix}"))
    with database.engine.connect() as connection:
        connection.execute(
            sa.text("INSERT INTO orders (name) VALUES (:name)"), {"name": f"raw{suffix}"}
        )
        connection.commit()
    with database.session(read_only=True) as reader, database.session() as writer:
        streamed = OrderReadDriver(reader).stream(chunk=1)
        next(streamed)
        OrderWriteDriver(writer).create(name=f"stream{suffix}")
        writer.commit()
        assert 5 <= 1 + len(list(streamed))


def test_a_copy_in_each_of_two_transactions(postgresql: World) -> None:
    """Rows that are copied by way of a temporary table are so in the next transaction too."""
    from qapla_db.query.bulk import bulk_insert

    with sandbox(postgresql):
        for _ in range(2):
            with postgresql.session() as session:
                rows = [{"name": name, "amount": 1} for name in "abc"]
                bulk_insert(session, Item, rows, on_conflict="ignore", by="name")
                session.commit()
        assert ["a", "b", "c"] == postgresql.names()


# --- when a transaction begins


def test_a_session_that_has_said_nothing_yet(world: World) -> None:
    """Who began first and spoke last rolls nothing back but its own work."""
    with sandbox(world):
        with world.session() as first, world.engine.connect() as second:
            first.begin()
            second.begin()
            world.add("committed by another")
            first.add(Item(name="discarded"))
            first.flush()
            first.rollback()
            second.execute(sa.insert(Item).values(name="discarded", amount=1))
            second.rollback()
        assert ["committed by another"] == world.names()


def test_many_readers_around_many_writers(world: World) -> None:
    """Twenty sessions that read at different times, and end in any order, undo nothing."""
    with sandbox(world):
        readers = []
        for number in range(20):
            reader = world.session()
            assert number == len(reader.scalars(sa.select(Item.name)).all())
            readers.append(reader)
            world.add(f"{number:02}")
        for number, reader in enumerate(readers[::2] + readers[::-2]):
            [reader.close, reader.rollback, reader.commit][number % 3]()
            reader.close()
        assert [f"{number:02}" for number in range(20)] == world.names()


def test_a_session_that_is_handed_to_another_thread(world: World) -> None:
    """What one thread began another one ends, and nobody waits for either."""
    with sandbox(world, wait=0.5):
        session = world.session()

        def begin() -> None:
            session.add(Item(name="handed over"))
            session.flush()

        def end() -> None:
            session.commit()
            session.close()

        in_thread(begin)()
        in_thread(end)()
        in_thread(lambda: world.add("after it"))()
        assert ["after it", "handed over"] == world.names()


# --- what a transaction set for itself


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL shop.tenant = 'seven'",
        "set local shop.tenant to 'seven'",
        "SELECT set_config('shop.tenant', 'seven', true)",
        sa.select(sa.func.set_config("shop.tenant", "seven", True)),
        "/* tenant */ SET LOCAL \"shop.tenant\" = 'seven'",
    ],
)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_settings_of_a_transaction_end_with_it(postgresql: World, statement: str, end: str) -> None:
    """Row level security sees the tenant of its own request, and of none before it."""
    tenant = "SELECT current_setting('shop.tenant', true)"
    with sandbox(postgresql):
        with postgresql.engine.connect() as connection:
            connection.execute(sa.text(statement) if isinstance(statement, str) else statement)
            assert "seven" == connection.exec_driver_sql(tenant).scalar()
            connection.execute(sa.insert(Item).values(name="item", amount=1))
            getattr(connection, end)()
            assert not connection.exec_driver_sql(tenant).scalar()


def test_settings_of_a_reader_end_with_it(postgresql: World) -> None:
    """A transaction that only read hands no setting down, whatever its name."""
    with sandbox(postgresql):
        with postgresql.engine.begin() as connection:
            before = connection.exec_driver_sql("SHOW statement_timeout").scalar()
            connection.exec_driver_sql("SET LOCAL statement_timeout = 4321")
            connection.exec_driver_sql("SET LOCAL statement_timeout = '99s'")
            assert "99s" == connection.exec_driver_sql("SHOW statement_timeout").scalar()
        with postgresql.engine.begin() as connection:
            assert before == connection.exec_driver_sql("SHOW statement_timeout").scalar()


@pytest.mark.parametrize("end", ["close", "commit"])
def test_a_reader_with_a_setting_takes_nothing_along(postgresql: World, end: str) -> None:
    """A session that set its tenant and read undoes nobody's commits, and hands nothing down."""
    tenant = sa.text("SELECT current_setting('shop.tenant', true)")
    with sandbox(postgresql):
        with postgresql.session() as reader:
            reader.execute(sa.text("SET LOCAL shop.tenant = 'seven'"))
            assert [] == reader.scalars(sa.select(Item.name)).all()
            with postgresql.session() as other:
                other.execute(sa.select(sa.func.set_config("shop.tenant", "eight", True)))
                other.add(Item(name="kept"))
                other.commit()
            assert ("seven", ["kept"]) == (
                reader.scalar(tenant),
                reader.scalars(sa.select(Item.name)).all(),
            )
            getattr(reader, end)()
        assert ["kept"] == postgresql.names()
        with postgresql.session() as session:
            assert not session.scalar(tenant)


def test_settings_of_a_session_stay(postgresql: World) -> None:
    """What is set for the whole session of the server outlives its transaction, and not a test."""
    show = "SHOW statement_timeout"
    with sandbox(postgresql):
        with postgresql.engine.begin() as connection:
            before = connection.exec_driver_sql(show).scalar()
            connection.exec_driver_sql("SET LOCAL statement_timeout = '99s'")
            connection.exec_driver_sql("SET statement_timeout = '77s'")
            connection.exec_driver_sql("SET LOCAL statement_timeout = '88s'")
        with postgresql.engine.begin() as connection:
            assert "77s" == connection.exec_driver_sql(show).scalar()
            connection.exec_driver_sql("SELECT set_config('statement_timeout', '66s', false)")
        with postgresql.engine.begin() as connection:
            assert "66s" == connection.exec_driver_sql(show).scalar()
    with sandbox(postgresql), postgresql.engine.connect() as connection:
        assert before == connection.exec_driver_sql(show).scalar()


# --- schema changes


def test_alembic_on_mariadb_is_caught(mariadb: World) -> None:
    """DDL of a migration step commits on MariaDB: the test is told, and what to do."""
    migration = pytest.importorskip("alembic.migration")
    operations = pytest.importorskip("alembic.operations")
    column: sa.Column[str] = sa.Column("note", sa.String(9))
    try:
        with sandbox_that_ends_with(mariadb, SandboxBroken, "ALTER TABLE item.*real commits"):
            with mariadb.engine.begin() as connection:
                context = migration.MigrationContext.configure(connection)
                operations.Operations(context).add_column("item", column)
    finally:
        with mariadb.outside.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE item DROP COLUMN IF EXISTS note")


# --- any order at all

ACTIONS = [
    *("read", "write", "write", "commit", "rollback", "nested", "failing", "close"),
    *("raw", "reader", "driver"),
]
STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ACTIONS)), min_size=1, max_size=25)


class Model:
    """What a server would have stored, beside the sessions that store it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions = [world.session() for _ in range(4)]
        self.pending: list[list[str]] = [[] for _ in range(4)]
        self.committed: list[str] = []
        self.names = (f"{number:03}" for number in range(1000))

    def step(self, number: int, action: str) -> None:
        session, pending = self.sessions[number], self.pending[number]
        getattr(self, f"_{action}")(session, pending)

    def _read(self, session: orm.Session, pending: list[str]) -> None:
        seen = session.scalars(sa.select(Item.name)).all()
        assert {*self.committed, *pending} <= {*seen}
        mine = {name for names in self.pending for name in names}
        assert {*seen} <= {*self.committed, *mine}

    def _write(self, session: orm.Session, pending: list[str]) -> None:
        name = next(self.names)
        session.add(Item(name=name))
        session.flush()
        pending.append(name)

    def _raw(self, session: orm.Session, pending: list[str]) -> None:
        name = next(self.names)
        with self.world.engine.begin() as connection:
            connection.execute(sa.insert(Item).values(name=name, amount=1))
        self.committed.append(name)

    def _reader(self, session: orm.Session, pending: list[str]) -> None:
        with self.world.engine.connect() as connection:
            connection = connection.execution_options(postgresql_readonly=True)
            seen = connection.scalars(sa.select(Item.name)).all()
        assert {*self.committed} <= {*seen}

    def _driver(self, session: orm.Session, pending: list[str]) -> None:
        name = next(self.names)
        by_driver(session, name)
        pending.append(name)
        self._commit(session, pending)

    def _nested(self, session: orm.Session, pending: list[str]) -> None:
        nested = session.begin_nested()
        session.add(Item(name=next(self.names)))
        session.flush()
        nested.rollback()

    def _failing(self, session: orm.Session, pending: list[str]) -> None:
        with pytest.raises(sa.exc.DBAPIError):
            session.execute(sa.text("SELECT nothing FROM nowhere"))
        self._rollback(session, pending)

    def _commit(self, session: orm.Session, pending: list[str]) -> None:
        session.commit()
        self.committed.extend(pending)
        pending.clear()

    def _rollback(self, session: orm.Session, pending: list[str]) -> None:
        session.rollback()
        pending.clear()

    def _close(self, session: orm.Session, pending: list[str]) -> None:
        session.close()
        pending.clear()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_sessions_in_any_order(world: World, steps: list[tuple[int, str]]) -> None:
    """Four sessions do anything in any order: what was committed is there, or a loss is told."""
    try:
        with sandbox(world):
            _play(world, steps)
    except (SandboxConflict, SandboxWarning):
        pass
    assert [] == world.really()


def _play(world: World, steps: list[tuple[int, str]]) -> None:
    model = Model(world)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SandboxWarning)
        try:
            for step in steps:
                model.step(*step)
            for session in model.sessions:
                session.close()
        finally:
            warnings.simplefilter("ignore", SandboxWarning)
            for session in model.sessions:
                with suppress(SandboxConflict):
                    session.close()
    assert sorted(model.committed) == world.names()
