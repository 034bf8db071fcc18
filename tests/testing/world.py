"""A database by hand for the tests of the sandbox, with a look behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, orm, pool
from sqlalchemy.engine import Connection, Engine

from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.support import plain_engine, wait_until

SECONDS = 20.0
"""Longest time that a thread of a test may take."""


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
    amount: orm.Mapped[int] = orm.mapped_column(default=0)


@dataclass
class World:
    """A database, and the same one seen from outside of the sandbox."""

    kind: str
    name: str
    engine: Engine
    outside: Engine

    def session(self, **options: Any) -> orm.Session:
        return orm.Session(self.engine, **options)

    def add(self, *names: str) -> None:
        """Commit items in a session of their own."""
        with self.session() as session:
            session.add_all([Item(name=name) for name in names])
            session.commit()

    def names(self) -> list[str]:
        """The items, as a new session sees them."""
        with self.session() as session:
            return list(session.scalars(sa.select(Item.name).order_by(Item.name)))

    def really(self) -> list[str]:
        """The items that are in the database for good."""
        with self.outside.connect() as connection:
            return list(connection.scalars(sa.select(Item.name).order_by(Item.name)))

    def wipe(self) -> None:
        """Remove what a test has stored for good on purpose."""
        with self.outside.begin() as connection:
            connection.execute(sa.delete(Item))


def by_driver(session: orm.Session, name: str) -> None:
    """Store an item by a cursor of the driver."""
    cursor = session.connection().connection.cursor()
    cursor.execute(f"INSERT INTO item (name, amount) VALUES ('{name}', 1)")  # noqa: S608
    cursor.close()


def make_engine(url: sa.URL, **options: Any) -> Engine:
    """Build an engine as the backends do, with less in it."""
    engine = plain_engine(url, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    if getattr(connection.engine.pool, "sandboxed", False):
        return
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def make_world(kind: str, url: sa.URL, **options: Any) -> World:
    outside = plain_engine(url, poolclass=pool.NullPool)
    return World(kind, f"the {kind} one", make_engine(url, **options), outside)


def fail_on_purpose() -> None:
    raise LookupError("on purpose")


def in_thread(work: Callable[[], object], name: str = "helper") -> Callable[[], object]:
    """Start work in a thread; the result is a function that waits for what it returned."""
    outcome: list[object] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()

    def wait() -> object:
        thread.join(SECONDS)
        assert not thread.is_alive(), f"the thread {name!r} does not end"
        if errors:
            raise errors[0]
        return outcome[0]

    return wait


SLOW = {
    "postgresql": "SELECT 1 FROM pg_sleep({})",
    "mariadb": "SELECT 1 + SLEEP({})",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n "
    "WHERE i < 4000000000) SELECT count(*) FROM n",
}
"""Statements that run for some seconds; SQLite's does until it is interrupted."""

RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
    "AND query LIKE 'SELECT 1 FROM pg_sleep%'",
    "mariadb": "SELECT count(*) FROM information_schema.processlist "
    "WHERE info LIKE 'SELECT 1 + SLEEP%'",
}


def wait_until_it_runs(world: World, announced: threading.Event) -> None:
    """Wait until a slow statement has reached the server, or was announced to be there."""
    if world.kind not in RUNNING:
        assert announced.wait(SECONDS)
        return
    with world.outside.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        question = sa.text(RUNNING[world.kind])
        wait_until(lambda: connection.scalar(question), "the slow statement runs")


@contextmanager
def sandbox_that_ends_with(
    world: World, error: type[BaseException], match: str | None = None
) -> Iterator[list[BaseException]]:
    """A sandbox out of which an error must come; it is in the list afterwards."""
    caught: list[BaseException] = []
    with pytest.raises(error, match=match) as info:
        with sandbox(world):
            yield caught
    caught.append(info.value)


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that the listeners of an engine see."""
    seen: list[str] = []

    def listen(_c: object, _cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", listen)
