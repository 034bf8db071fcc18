"""get_or_create: one row, whoever else does the same."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    validates,
)

from qapla_db import Database
from qapla_db.errors import InvalidArgument, Misuse, MultipleFound, ReadOnlyError, UnknownField
from qapla_db.query.creating import get_or_create
from tests.conftest import FreshURL
from tests.query.models import Account, Airport, Base, City, Leg, Note, Point, Street, Truck, User
from tests.support import make_application

THREADS = 8
CALLS = 50


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect the statements that reach the driver, those of transactions aside."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        if "SAVEPOINT" not in statement and not statement.startswith("BEGIN"):
            seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)


def in_between(database: Database, work: Callable[[], object], before: str = "INSERT") -> None:
    """Let somebody else do something once, right before the next statement of a kind."""
    done: list[str] = []

    def listen(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        if statement.startswith(before) and not done:
            done.append(statement)
            with ThreadPoolExecutor(1) as other:
                other.submit(work).result(20)

    sa.event.listen(database.engine, "before_cursor_execute", listen)


def test_missing_then_existing(database: Database) -> None:
    """A missing row costs two statements and an existing one a single statement."""
    with database.session() as session:
        with statements(database) as seen:
            made, created = get_or_create(session, Airport, {"code": "EPWA"}, name="Chopin")
        assert (True, "EPWA", "Chopin", 0) == (created, made.code, made.name, made.elevation)
        assert ["SELECT", "INSERT"] == [one.split()[0] for one in seen]
        session.commit()
    with database.session() as session:
        with statements(database) as seen:
            found, created = get_or_create(session, Airport, {"code": "EPWA"}, name="other")
        assert (False, "Chopin") == (created, found.name)
        assert ["SELECT"] == [one.split()[0] for one in seen]


def test_nothing_is_committed(database: Database) -> None:
    """The caller commits, or it does not."""
    with database.session() as session:
        get_or_create(session, City, {"code": "WAW"}, name="Warszawa")
        assert session.has_uncommitted
        session.rollback()
        assert 0 == session.scalar(sa.select(sa.func.count()).select_from(City))


def test_race_of_many(database: Database) -> None:
    """Eight threads that make the same fresh rows all succeed, and every row is there once."""
    start = threading.Barrier(THREADS, timeout=20)

    def work(number: int) -> list[tuple[int, bool]]:
        start.wait()
        done = []
        for call in range(CALLS):
            with database.transaction() as session:
                one, created = get_or_create(session, Airport, {"code": f"A{call}"}, name="x")
                done.append((one.id, created))
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        results = [one for many in pool.map(work, range(THREADS), timeout=120) for one in many]
    assert THREADS * CALLS == len(results)
    assert CALLS == sum(created for _, created in results)
    with database.session() as session:
        stored = session.scalars(sa.select(Airport.id)).all()
    assert CALLS == len(stored)
    assert set(stored) == {key for key, _ in results}


@pytest.fixture(params=["postgresql", "mariadb"])
def server_database(request: pytest.FixtureRequest, fresh_url: FreshURL) -> Iterator[Database]:
    """A database in which two transactions can write at a time."""
    with make_application({"main": fresh_url(request.param)}) as app:
        database = app.dbs["main"]
        database.create()
        Base.metadata.create_all(database.engine)
        yield database


def store(database: Database, *instances: Any) -> None:
    """Store instances in a transaction of their own."""
    with database.transaction() as session:
        session.add_all(instances)


def test_lost_race_keeps_what_the_caller_has_done(server_database: Database) -> None:
    """Flushed and pending changes survive a lost race, which costs a third statement."""
    database = server_database
    store(database, City(code="KRK", name="Krakow"))
    with database.session() as session:
        session.add(City(code="WAW", name="Warszawa"))
        session.flush()
        krakow = session.get_one(City, "KRK")
        krakow.name = "Kraków"
        session.add(City(code="GDN", name="Gdańsk"))
        session.flush()
        krakow.size = 800_000
        with statements(database) as seen:
            in_between(database, lambda: store(database, Airport(code="EPWA", name="theirs")))
            found, created = get_or_create(session, Airport, {"code": "EPWA"}, name="ours")
        assert (False, "theirs") == (created, found.name)
        ours = [one.split()[0] for one in seen if "airport" in one]
        assert ["SELECT", "INSERT", "INSERT", "SELECT"] == ours  # the second one is theirs
        session.commit()
    with database.session() as session:
        names = session.execute(sa.select(City.name, City.size).order_by(City.code)).all()
        assert [("Gdańsk", None), ("Kraków", 800_000), ("Warszawa", None)] == names


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_lost_race_that_a_snapshot_hides(postgresql_database_url: sa.URL, level: str) -> None:
    """Where the winner's row cannot be seen, PostgreSQL's own 40001 says: run it all again."""
    options = {"db:main:options": {"isolation_level": level}}
    with make_application({"main": postgresql_database_url}, settings=options) as app:
        database = app.dbs["main"]
        Base.metadata.create_all(database.engine)
        with database.session() as session:
            in_between(database, lambda: store(database, Airport(code="EPWA", name="theirs")))
            with pytest.raises(sa.exc.OperationalError) as caught:
                get_or_create(session, Airport, {"code": "EPWA"}, name="ours")
            assert "40001" == getattr(caught.value.orig, "sqlstate", None)
            assert database.backend.is_retryable(caught.value)
        with database.session() as session:
            found, created = get_or_create(session, Airport, {"code": "EPWA"}, name="ours")
            assert (False, "theirs") == (created, found.name)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_other_key_is_no_race(postgresql_database_url: sa.URL, level: str) -> None:
    """A row that breaks a key which the filter does not name is an error, at every level."""
    options = {"db:main:options": {"isolation_level": level}}
    with make_application({"main": postgresql_database_url}, settings=options) as app:
        database = app.dbs["main"]
        Base.metadata.create_all(database.engine)
        store(database, Airport(code="EPWA", name="Chopin"))
        with database.session() as session:
            with pytest.raises(sa.exc.IntegrityError):
                get_or_create(session, Airport, {"name": "Okęcie"}, code="EPWA")
            assert 1 == session.scalar(sa.select(sa.func.count()).select_from(Airport))


def test_row_that_comes_and_goes(postgresql_database_url: sa.URL) -> None:
    """A row that was in the way and has gone again is created after all."""
    with make_application({"main": postgresql_database_url}) as app:
        database = app.dbs["main"]
        Base.metadata.create_all(database.engine)

        def remove() -> None:
            with database.transaction() as session:
                session.execute(sa.delete(Airport))

        in_between(database, remove, "ROLLBACK TO")
        with database.session() as session:
            in_between(database, lambda: store(database, Airport(code="EPWA", name="theirs")))
            found, created = get_or_create(session, Airport, {"code": "EPWA"}, name="ours")
            assert (True, "ours") == (created, found.name)
            session.commit()
        with database.session() as session:
            assert ["ours"] == list(session.scalars(sa.select(Airport.name)))


@pytest.mark.parametrize(
    "values", [{"elevation": -5000, "name": "x"}, {"name": None}], ids=["check", "null"]
)
def test_broken_rule_is_no_race(database: Database, values: dict[str, Any]) -> None:
    """What breaks a rule is an error as SQLAlchemy has it, and the session can go on."""
    with database.session() as session:
        session.add(City(code="WAW", name="Warszawa"))
        with pytest.raises(sa.exc.DBAPIError):  # PyMySQL has another class for a CHECK
            get_or_create(session, Airport, {"code": "EPWA"}, **values)
        session.commit()
    with database.session() as session:
        assert ["WAW"] == list(session.scalars(sa.select(City.code)))
        assert [] == list(session.scalars(sa.select(Airport)))


def test_broken_reference_is_no_race(server_database: Database) -> None:
    """A row that refers to nothing is SQLAlchemy's own error, and the session can go on."""
    with server_database.session() as session:
        with pytest.raises(sa.exc.IntegrityError):
            get_or_create(session, Street, {"city_code": "nowhere"}, name="x")
        assert get_or_create(session, City, {"code": "WAW"}, name="Warszawa")[1]


def test_error_of_the_caller_s_own_is_no_race(memory: Database) -> None:
    """What the caller has added wrongly is its own error, not a lost race."""
    with memory.session() as session:
        session.add(Airport(code="EPWA", name="Chopin"))
        session.flush()
        with session.no_autoflush:
            session.add(Airport(code="EPWA", name="again"))
            with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
                get_or_create(session, Airport, {"code": "EPMO"}, name="Modlin")


def test_none_means_null(database: Database) -> None:
    """None finds the rows whose field is NULL and creates such rows."""
    with database.session() as session:
        store(database, Leg(number=1, origin="A", miles=5))
        made, created = get_or_create(session, Leg, {"number": 1, "miles": None}, origin="B")
        assert (True, "B", None) == (created, made.origin, made.miles)
        assert (made, False) == get_or_create(session, Leg, {"number": 1, "miles": None})


def test_all_kinds_of_constructor(database: Database) -> None:
    """Dataclasses, constructors of their own, renamed columns and joined tables are all built."""
    with database.session() as session:
        point, created = get_or_create(session, Point, {"x": 3})
        assert (True, 3, 7) == (created, point.x, point.y)
        user, created = get_or_create(session, User, {"name": "me"}, password="secret")
        assert (True, "terces") == (created, user.hashed)
        account, created = get_or_create(session, Account, {"tenant": 1, "login": "me"})
        assert (True, 1) == (created, account.changes)
        truck, created = get_or_create(session, Truck, {"plate": "W1"}, tons=12)
        assert (True, 12) == (created, truck.tons)
        session.commit()
        session.expunge_all()
        assert not get_or_create(session, Point, {"x": 3})[1]
        assert not get_or_create(session, User, {"name": "me"}, password="other")[1]
        assert not get_or_create(session, Account, {"tenant": 1, "login": "me"})[1]
        assert not get_or_create(session, Truck, {"plate": "W1"})[1]
        with pytest.raises(ValueError, match="a user has a name"):
            get_or_create(session, User, {"name": ""})
        assert 1 == session.scalar(sa.select(sa.func.count()).select_from(User))


def test_lost_race_of_joined_tables(server_database: Database) -> None:
    """A model in two tables leaves nothing behind when it loses a race."""
    database = server_database
    with database.session() as session:
        in_between(database, lambda: store(database, Truck(plate="W1", tons=1)))
        found, created = get_or_create(session, Truck, {"plate": "W1"}, tons=2)
        assert (False, 1) == (created, found.tons)


def test_relationship_as_a_filter(memory: Database) -> None:
    """An instance stands for what it is related by, in the look-up and in the new row."""
    with memory.session() as session:
        city, _ = get_or_create(session, City, {"code": "WAW"}, name="Warszawa")
        street, created = get_or_create(session, Street, {"city": city, "name": "Prosta"})
        assert (True, "WAW", [street]) == (created, street.city_code, city.streets)
        assert (street, False) == get_or_create(session, Street, {"city": city, "name": "Prosta"})


def test_same_fields_with_other_values(memory: Database) -> None:
    """Each call looks for its own values, also NULL and SQL expressions."""
    with memory.session() as session:
        for number, miles in ((1, None), (2, 5), (3, None), (4, 6)):
            values = {"number": number, "miles": miles}
            assert get_or_create(session, Leg, values, origin="A")[1]
            found, created = get_or_create(session, Leg, values)
            assert (False, number, miles) == (created, found.number, found.miles)
        shouted = {"code": sa.func.upper("waw")}
        assert "WAW" == get_or_create(session, City, shouted, name="x")[0].code
        assert not get_or_create(session, City, shouted, name="x")[1]


def test_several_rows(memory: Database) -> None:
    """Where the filter is not unique and several rows answer it, that is an error."""
    with memory.session() as session:
        session.add_all([Note(title="a"), Note(title="a")])
        with pytest.raises(MultipleFound, match="more than one Note has these"):
            get_or_create(session, Note, {"title": "a"})
        assert get_or_create(session, Note, {"title": "b"})[1]


@pytest.mark.parametrize("filter_by", [Airport.code == "EPWA", None, {}, "EPWA"])
def test_filter_that_nothing_can_be_created_from(memory: Database, filter_by: Any) -> None:
    """An expression, or nothing, is refused, with the reason."""
    with memory.session() as session, pytest.raises(Misuse, match="nothing can be created from"):
        get_or_create(session, Airport, filter_by)


def test_values_that_contradict_themselves(memory: Database) -> None:
    """A field has one value: not a list of them, and none that the filter does not have."""
    with memory.session() as session:
        with pytest.raises(InvalidArgument, match=r"several values for Airport\.code"):
            get_or_create(session, Airport, {"code": ["EPWA", "EPMO"]})
        with pytest.raises(InvalidArgument, match=r"two values for Airport\.name"):
            get_or_create(session, Airport, {"code": "EPWA", "name": "a"}, name="b")
        with pytest.raises(UnknownField, match="naem"):
            get_or_create(session, Airport, {"code": "EPWA"}, naem="b")
        assert get_or_create(session, Airport, {"code": "EPWA", "name": "a"}, name="a")[1]


class OwnBase(DeclarativeBase):
    """Base of the model here."""


class Login(OwnBase):
    """Fields that are named as arguments are."""

    __tablename__ = "login"
    id: Mapped[int] = mapped_column(primary_key=True)
    session: Mapped[str] = mapped_column(sa.String(9))
    model: Mapped[str | None] = mapped_column(sa.String(9))
    filter_by: Mapped[str | None] = mapped_column(sa.String(9))


class Price(OwnBase):
    """Keys that a database, or the model, stores otherwise than they are given."""

    __tablename__ = "price"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2), unique=True)
    moment: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime, unique=True)
    mail: Mapped[str | None] = mapped_column(sa.String(40), unique=True)

    @validates("mail")
    def _lower(self, key: str, mail: str) -> str:
        return mail.lower()


class Entry(OwnBase):
    """What a listener writes when a note is stored."""

    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column(sa.String(10), unique=True)


class Watched(OwnBase):
    """A model that a listener looks at, with fields that are stored nowhere."""

    __tablename__ = "watched"
    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[str] = mapped_column(sa.String(10), unique=True)
    doubled: Mapped[int | None] = mapped_column(sa.Computed("id * 2"))
    shouted: Mapped[str] = column_property(sa.func.upper(first))


@sa.event.listens_for(Watched, "after_insert")
def _write(mapper: Any, connection: sa.Connection, target: Any) -> None:
    if target.first == "breaks":
        connection.execute(sa.update(Entry).where(Entry.id == 2).values(word="one"))


@pytest.fixture
def own(each_url: sa.URL) -> Iterator[Database]:
    """A database with the tables of the models here."""
    with make_application({"main": each_url}) as app:
        OwnBase.metadata.create_all(app.dbs["main"].engine)
        yield app.dbs["main"]


@pytest.mark.parametrize(
    "key",
    [
        {"amount": Decimal("1.005")},
        {"moment": datetime.datetime(2020, 1, 1, 1, 1, 1, 123456)},
        {"mail": "Worf@Example.org"},
    ],
    ids=["number", "moment", "validator"],
)
def test_key_that_is_stored_otherwise(own: Database, key: dict[str, Any]) -> None:
    """A key that is rounded, or converted by the model, is found again once it is there."""
    with own.session() as session:
        made, created = get_or_create(session, Price, key)
        assert created
        assert (made, False) == get_or_create(session, Price, key)
        assert 1 == session.count(Price)


def test_a_listener_breaks_a_rule(own: Database) -> None:
    """The error of another statement than the model's own is passed on as it is."""
    with own.session() as session:
        session.add_all([Entry(id=1, word="one"), Entry(id=2, word="two")])
        session.flush()
        with pytest.raises(sa.exc.IntegrityError, match=r"(?i)update entry"):
            get_or_create(session, Watched, {"first": "breaks"})
        assert get_or_create(session, Watched, {"first": "x"})[1]


@pytest.mark.parametrize("values", [{"shouted": "X"}, {"doubled": 4}])
def test_fields_that_are_stored_nowhere(memory: Database, values: dict[str, Any]) -> None:
    """A new row would have another value, so nothing is created by it, or with it."""
    OwnBase.metadata.create_all(memory.engine)
    with memory.session() as session:
        with pytest.raises(InvalidArgument, match=r"Watched\.\w+ cannot be set"):
            get_or_create(session, Watched, values)
        with pytest.raises(InvalidArgument, match=r"Watched\.\w+ cannot be set"):
            get_or_create(session, Watched, {"first": "x"}, **values)
        assert 0 == session.count(Watched)


@pytest.mark.parametrize("key", [{"id": 2**40}, {"amount": Decimal(10) ** 12}])
def test_number_that_does_not_fit(own: Database, key: dict[str, Any]) -> None:
    """Where the server refuses a number, what the caller has done before is not lost."""
    with own.session() as session:
        session.add(Entry(id=1, word="one"))
        session.flush()
        if own.engine.dialect.name == "sqlite":
            assert get_or_create(session, Price, key)[1]
        else:
            with pytest.raises(sa.exc.DBAPIError):
                get_or_create(session, Price, key)
        assert "one" == session.scalar(sa.select(Entry.word))


def test_fields_named_as_arguments(memory: Database) -> None:
    """A default may be for a field of any name but filter_by, which the filter can have."""
    OwnBase.metadata.create_all(memory.engine)
    with memory.session() as session:
        made, created = get_or_create(session, Login, {"id": 1}, session="s", model="m")
        assert (created, "s", "m") == (True, made.session, made.model)
        values = {"session": "t", "filter_by": "f"}
        other, created = session.get_or_create(Login, values, model="n")
        assert (created, "n", "f") == (True, other.model, other.filter_by)
        third, created = session.query(Login).get_or_create({"id": 3}, session="u")
        assert (created, "u") == (True, third.session)
        assert session.query().get_or_create(model=Login, filter_by={"id": 4}, session="v")[1]
        defaults: dict[str, Any] = {"session": "s", "model": "m"}
        with pytest.raises(Misuse, match="mapped class"):
            session.query(Login).get_or_create(filter_by={"id": 5}, **defaults)


def test_read_only_session(memory: Database) -> None:
    """A read-only session gets, and refuses to create."""
    store(memory, City(code="WAW", name="Warszawa"))
    with memory.session(read_only=True) as session:
        assert "Warszawa" == get_or_create(session, City, {"code": "WAW"})[0].name
        with pytest.raises(ReadOnlyError):
            get_or_create(session, City, {"code": "KRK"}, name="Kraków")


def test_plain_session(memory: Database) -> None:
    """A session of SQLAlchemy's own will do."""
    with Session(memory.engine) as session:
        assert get_or_create(session, City, {"code": "WAW"}, name="Warszawa")[1]


def test_a_value_of_another_type_creates_nothing(database: Database) -> None:
    """A number for a text is refused: MariaDB would take somebody else's row for it."""
    with database.session() as session:
        session.get_or_create(City, {"code": "c1"}, name="Warta")
        with pytest.raises(InvalidArgument, match=r"City\.code.*str"):
            session.get_or_create(City, {"code": 0}, name="x")
        assert 1 == session.count(City)
