"""Drivers: what reads and what writes one model."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from qapla_db import NotFound, ReadDriver, WriteDriver
from qapla_db.errors import InvalidArgument, Misuse, UnknownField
from tests.support import make_application


class Base(DeclarativeBase):
    pass


class Airport(Base):
    __tablename__ = "airport"
    code: Mapped[str] = mapped_column(sa.String(4), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80), unique=True)

    @hybrid_property
    def title(self) -> str:
        return f"{self.code} {self.name}"

    @title.inplace.setter
    def _set_title(self, title: str) -> None:
        self.code, self.name = title.split(" ", 1)

    def land(self) -> None:
        """Not a field."""


class Leg(Base):
    __tablename__ = "leg"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    origin: Mapped[str] = mapped_column(sa.String(4), primary_key=True)


class Point(MappedAsDataclass, Base, kw_only=True):
    __tablename__ = "point"
    number: Mapped[int] = mapped_column(primary_key=True, init=False)
    x: Mapped[int]
    y: Mapped[int] = mapped_column(default=7)


class User(Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    hashed: Mapped[str] = mapped_column(sa.String(20))

    def __init__(self, name: str, password: str) -> None:
        self.name, self.hashed = name, password[::-1]


class AirportReadDriver(ReadDriver[Airport]):
    model = Airport


class AirportWriteDriver(WriteDriver[Airport]):
    model = Airport


def writer(of: type[Any], session: Any) -> WriteDriver[Any]:
    """A write driver of any model."""
    driver: WriteDriver[Any] = type("SomeWriteDriver", (WriteDriver,), {"model": of})(session)
    return driver


def reader(of: type[Any], session: Any) -> ReadDriver[Any]:
    """A read driver of any model."""
    driver: ReadDriver[Any] = type("SomeReadDriver", (ReadDriver,), {"model": of})(session)
    return driver


@pytest.fixture
def database(each_url: sa.URL) -> Any:
    with make_application({"main": each_url}) as app:
        database = app.dbs["main"]
        Base.metadata.create_all(database.engine)
        yield database


@pytest.fixture
def memory() -> Any:
    with make_application({"main": "sqlite://"}) as app:
        database = app.dbs["main"]
        Base.metadata.create_all(database.engine)
        yield database


def test_create_flushes_and_the_caller_commits(database: Any) -> None:
    """What a driver makes is in the database for its session, and stays only if it commits."""
    with database.session() as session:
        made = AirportWriteDriver(session).create(code="EPWA", name="Chopin")
        assert made in session
        assert 1 == session.scalar(sa.text("SELECT count(*) FROM airport"))
    with database.session() as session:
        assert [] == AirportReadDriver(session).list_all()
        AirportWriteDriver(session).create(code="EPWA", name="Chopin")
        session.commit()
    with database.session() as session:
        assert "Chopin" == AirportReadDriver(session).get_by_id("EPWA").name


def test_list_all_in_the_order_of_the_key(database: Any) -> None:
    """All rows come ordered by primary key, whatever the order of their making."""
    keys = [(2, "A"), (1, "B"), (1, "A"), (10, "A")]
    with database.transaction() as session:
        for number, origin in keys:
            writer(Leg, session).create(number=number, origin=origin)
    with database.session() as session:
        found = reader(Leg, session).list_all()
        assert sorted(keys) == [(leg.number, leg.origin) for leg in found]


@pytest.mark.parametrize("key", [(1, "A"), [1, "A"], {"number": 1, "origin": "A"}])
def test_composite_key(memory: Any, key: Any) -> None:
    """A composite key is a sequence in the order of its columns, or a mapping."""
    with memory.transaction() as session:
        made = writer(Leg, session).create(number=1, origin="A")
        assert made is reader(Leg, session).get_by_id(key)


@pytest.mark.parametrize(("model", "key"), [(Airport, "nope"), (Leg, (1, "nope")), (Point, 9)])
def test_get_by_id_of_nothing(memory: Any, model: type[Any], key: Any) -> None:
    """A row that is not there is an error that names model and key, also in another process."""
    with memory.session() as session, pytest.raises(NotFound) as caught:
        reader(model, session).get_by_id(key)
    copy = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, copy):
        assert (model, key) == (error.model, error.key)
        assert f"{model.__name__} with the primary key {key!r} does not exist" == str(error)


@pytest.mark.parametrize(
    "name", ["naem", "land", "metadata", "_sa_instance_state", "__tablename__"]
)
def test_misspelt_field(memory: Any, name: str) -> None:
    """What is no field of the model is an error, and nothing is stored."""
    with memory.session() as session:
        driver = AirportWriteDriver(session)
        with pytest.raises(UnknownField, match=rf"Airport has no field '{name}'.*name") as caught:
            driver.create(code="EPWA", **{name: "Chopin"})
        assert (name,) == caught.value.unknown
        assert {"code", "name", "title"} <= set(caught.value.known)
        assert isinstance(caught.value, InvalidArgument)
        assert not session.has_uncommitted


def test_hybrid_properties_and_own_constructors(memory: Any) -> None:
    """Every argument that the model's constructor takes may be given."""
    with memory.session() as session:
        made = AirportWriteDriver(session).create(title="EPWA Chopin")
        assert ("EPWA", "Chopin") == (made.code, made.name)
        assert "terces" == writer(User, session).create(name="me", password="secret").hashed
        with pytest.raises(UnknownField, match="hashed, name, password"):
            writer(User, session).create(name="me", passwort="secret")


def test_dataclass_model(database: Any) -> None:
    """Models mapped as dataclasses work, with defaults and keys of the database."""
    with database.session() as session:
        point = writer(Point, session).create(x=1)
        assert (1, 7) == (point.x, point.y)
        assert point is reader(Point, session).get_by_id(point.number)
        with pytest.raises(UnknownField):
            writer(Point, session).create(x=1, z=2)


def test_constraint_violation_surfaces_in_create(memory: Any) -> None:
    """What the database refuses is raised where it was written, not at a later commit."""
    with memory.session() as session:
        driver = AirportWriteDriver(session)
        driver.create(code="EPWA", name="Chopin")
        with pytest.raises(sa.exc.IntegrityError):
            driver.create(code="EPMO", name="Chopin")


@pytest.mark.parametrize("session", [None, "main", 7])
def test_driver_without_a_session(session: Any) -> None:
    """A driver bound to something else says what it takes."""
    with pytest.raises(Misuse, match=r"AirportReadDriver takes a session, such as request\.main"):
        AirportReadDriver(session)


@pytest.mark.parametrize("model", [None, int, Base])
def test_driver_without_a_model(memory: Any, model: Any) -> None:
    """A driver whose model is no mapped class says how to set it."""
    with memory.session() as session, pytest.raises(Misuse, match="model = Airport"):
        reader(model, session)
    with memory.session() as session, pytest.raises(Misuse, match="model = Airport"):
        ReadDriver(session)
