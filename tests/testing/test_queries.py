"""Statements are counted, and lazy loads are found, wherever they come from."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from qapla_db import Database
from qapla_db.errors import Misuse, UnexpectedQueries
from qapla_db.testing import assert_queries, no_lazy_loads, sandbox
from tests.support import make_application


class Base(DeclarativeBase):
    pass


class Ship(Base):
    __tablename__ = "ship"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    log: Mapped[str | None] = mapped_column(sa.String(50), deferred=True)
    crew: Mapped[list[Sailor]] = relationship(back_populates="ship", cascade="all")
    cargo: Mapped[list[Box]] = relationship()


class Box(Base):
    __tablename__ = "box"

    id: Mapped[int] = mapped_column(primary_key=True)
    ship_id: Mapped[int | None] = mapped_column(sa.ForeignKey("ship.id"))


class Sailor(Base):
    __tablename__ = "sailor"

    id: Mapped[int] = mapped_column(primary_key=True)
    ship_id: Mapped[int] = mapped_column(sa.ForeignKey("ship.id"))
    ship: Mapped[Ship] = relationship(back_populates="crew")


@pytest.fixture
def main(each_url: sa.URL) -> Iterator[Database]:
    """A database with two ships of two sailors each, on each kind of engine in turn."""
    app = make_application({"main": each_url})
    database = app.dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.transaction() as session:
        session.add_all(
            Ship(name=name, log="long", crew=[Sailor(), Sailor()])
            for name in ("Rotarran", "Bortas")
        )
    yield database
    app.close()


SHIPS = sa.select(Ship).order_by(Ship.id)


def test_just_as_many(main: Database) -> None:
    """A block that sends what it says passes, and shows what it sent."""
    with main.session() as session, assert_queries(exactly=2) as queries:
        ship = session.scalars(SHIPS).first()
        assert ship is not None
        assert 2 == len(ship.crew)
    assert ["FROM ship" in queries[0].sql, "FROM sailor" in queries[1].sql] == [True, True]
    assert "test_queries.py" in queries[0].place
    assert queries[0].place.endswith("in test_just_as_many")


@pytest.mark.parametrize("limit", [{"max": 2}, {"exactly": 2}, {"exactly": 4}])
def test_other_number(main: Database, limit: Any) -> None:
    """Too many, or too few, is an AssertionError with each statement and its line, and no value."""

    def block() -> None:
        with main.session() as session, assert_queries(**limit):
            for name in ("Rotarran", "secret", "Bortas"):
                session.scalars(sa.select(Ship.id).where(Ship.name == name)).all()

    with pytest.raises(
        AssertionError, match=r"expected .*, and there were 3 statements:\n"
    ) as info:
        block()
    assert isinstance(info.value, UnexpectedQueries)
    assert 3 == str(info.value).count("SELECT ship.id")
    assert 3 == str(info.value).count("in block")
    assert "secret" not in str(info.value)


def test_match(main: Database) -> None:
    """Statements that do not match do not count."""
    with main.transaction() as session, assert_queries(exactly=1, match=r"^insert into ship"):
        session.scalars(SHIPS).all()
        session.add(Ship(name="Pagh"))
        session.flush()
    with (
        pytest.raises(UnexpectedQueries, match="statements that match 'update', and there were 0"),
        assert_queries(exactly=1, match="update"),
    ):
        pass


def test_everywhere(main: Database) -> None:
    """Other threads, other engines, raw SQL and many rows at once all count."""
    other = sa.create_engine("sqlite://")

    def read() -> None:
        with main.session() as session:
            session.scalars(SHIPS).all()

    with assert_queries(exactly=4) as queries:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        with other.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        with main.engine.begin() as connection:
            connection.exec_driver_sql("SELECT 2")
            connection.execute(
                sa.text("INSERT INTO ship (name) VALUES (:name)"), [{"name": "a"}, {"name": "b"}]
            )
    assert [1, 1, 1, 2] == [one.rows for one in queries]
    with main.session() as session:
        session.scalars(SHIPS).all()
    assert 4 == len(queries)  # nothing is counted after the block


def test_sandbox_counts_the_same(main: Database) -> None:
    """Neither a sandbox nor savepoints change what is counted."""
    with sandbox(main), assert_queries(exactly=2):
        with main.session() as session:
            with session.begin_nested():
                session.add(Ship(name="Pagh"))
            session.commit()
        with main.session() as session:
            assert 3 == session.scalar(sa.select(sa.func.count()).select_from(Ship))


def test_error_passes(main: Database) -> None:
    """An error of the block is what is seen, not that statements are missing."""
    with pytest.raises(ZeroDivisionError), assert_queries(exactly=7):
        _ = 1 / 0


@pytest.mark.parametrize("limits", [{}, {"max": 1, "exactly": 1}])
def test_wrong_use(limits: Any) -> None:
    """A limit is needed, and one only."""
    with pytest.raises(Misuse, match="either max= or exactly="), assert_queries(**limits):
        pass


LAZY: dict[str, tuple[Callable[[Session], Any], str]] = {
    "collection": (lambda session: session.scalars(SHIPS).all()[0].crew, r"^Ship\.crew .*select"),
    "parent": (lambda session: session.scalars(sa.select(Sailor)).all()[0].ship, r"^Sailor\.ship"),
    "deferred": (lambda session: session.scalars(SHIPS).all()[0].log, r"deferred column of Ship"),
    "expired": (lambda session: _expired(session).name, r"of one that is expired"),
}


def _expired(session: Session) -> Ship:
    ship = session.get_one(Ship, 1)
    session.commit()
    return ship


@pytest.mark.parametrize("way", LAZY)
def test_lazy(main: Database, way: str) -> None:
    """What is loaded because an attribute is read is found, with its name and line."""
    read, words = LAZY[way]
    with (
        pytest.raises(UnexpectedQueries, match=words) as info,
        main.session() as session,
        no_lazy_loads(),
    ):
        read(session)
    assert "test_queries.py" in str(info.value)
    with main.session() as session:
        read(session)  # after the block it is allowed again


def test_lazy_and_swallowed(main: Database) -> None:
    """Code that swallows every error hides no lazy load."""

    def block() -> None:
        with main.session() as session, no_lazy_loads():
            ship = session.scalars(SHIPS).all()[0]
            with suppress(Exception):
                _ = ship.crew

    with pytest.raises(UnexpectedQueries, match=r"Ship\.crew"):
        block()


def test_not_lazy(main: Database) -> None:
    """Eager loading is no lazy load, nor what a flush and methods of a session need."""
    with main.session() as session, no_lazy_loads():
        for option in (selectinload(Ship.crew), joinedload(Ship.crew)):
            for ship in session.scalars(SHIPS.options(option)).unique():
                assert 2 == len(ship.crew)
            session.expunge_all()
        ship = session.get_one(Ship, 1)
        session.refresh(ship)
        assert "Rotarran" == ship.name
        session.refresh(ship, ["crew"])
        ship.name = "Negh'Var"
        session.merge(Ship(id=2, cargo=[]))
        with assert_queries(max=1, match="FROM sailor"):
            session.delete(ship)  # loads whom it deletes too
        with assert_queries(exactly=1, match="FROM box"):
            session.commit()  # loads what belongs to nobody from now on


def test_lazy_in_a_listener(main: Database) -> None:
    """A listener that reads an attribute during a flush loads lazily as any other code does."""

    def listener(session: Session, *rest: object) -> None:
        assert session.get_one(Ship, 1).crew

    def block() -> None:
        with main.session() as session, no_lazy_loads():
            sa.event.listen(session, "before_flush", listener)
            session.add(Ship(name="Pagh"))
            session.flush()

    with pytest.raises(UnexpectedQueries, match=r"Ship\.crew .* in listener"):
        block()


COUNTED = """
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://")

    def send(count):
        with engine.connect() as connection:
            for _ in range(count):
                connection.exec_driver_sql("SELECT 1")

    def test_few():
        send(2)

    def test_many():
        send(30)
        assert False

    def test_none():
        pass
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_summary(pytester: pytest.Pytester, workers: list[str]) -> None:
    """--db-queries shows the tests with the most statements, of all workers, failed ones too."""
    pytester.makepyfile(test_counted=COUNTED)
    result = pytester.runpytest_subprocess("--db-queries", "-p", "no:cacheprovider", *workers)
    result.stdout.fnmatch_lines(
        [
            "*most statements to databases*",
            "    30 test_counted.py::test_many",
            "     2 test_counted.py::test_few",
        ]
    )
    assert "test_none" not in result.stdout.str()
    result = pytester.runpytest_subprocess("--db-queries=1", "-p", "no:cacheprovider", *workers)
    assert "test_few" not in result.stdout.str()


def test_no_lazy_loads_leaves_sessions_as_they_were() -> None:
    """After it sessions have no listener, with which SQLAlchemy prepares each statement twice."""
    program = (
        "from sqlalchemy.orm import Session\n"
        "from qapla_db.testing import no_lazy_loads\n"
        "with no_lazy_loads(), no_lazy_loads():\n"
        "    assert Session().dispatch.do_orm_execute\n"
        "assert not Session().dispatch.do_orm_execute\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_no_password_in_the_message() -> None:
    """Statements are shown without the passwords that they set."""
    engine = sa.create_engine("sqlite://")
    with pytest.raises(UnexpectedQueries, match=r"PASSWORD '\*\*\*'") as caught:
        with assert_queries(exactly=0), engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1 -- CREATE ROLE one PASSWORD 'hunter2'")
    engine.dispose()
    assert "hunter2" not in str(caught.value)
