"""Drivers: what reads and what writes one model."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from qapla_db import NotFound, ReadDriver, WriteDriver
from qapla_db.errors import InvalidArgument, Misuse, MultipleFound, ReadOnlyError, UnknownField
from qapla_db.query.methods import ScopedSession
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


class PointReadDriver(ReadDriver[Point]):
    model = Point


class PointWriteDriver(WriteDriver[Point]):
    model = Point


@pytest.fixture
def points(database: Any) -> Any:
    """A database with the points (0, 0), (1, 1), (2, 0), (3, 1)."""
    with database.transaction() as session:
        for x in range(4):
            PointWriteDriver(session).create(x=x, y=x % 2)
    return database


def test_reading(points: Any) -> None:
    """A read driver finds, counts, pages and streams with the same filters."""
    with points.session() as session:
        read = PointReadDriver(session)
        assert 2 == read.count({"y": 1})
        assert read.check_exists(Point.x == 3)
        assert not read.check_exists({"x": 9})
        one = read.find_by(x=2)
        assert one is not None
        assert one is read.find_by({"x": 2}, y=0)
        assert one is read.get_by_id(one.number)
        assert read.find_by(x=2, y=1) is None
        with pytest.raises(MultipleFound):
            read.find_by(y=1)
        assert [3, 1] == [point.x for point in read.list_all({"y": 1}, order_by="-x")]
        page = read.paginate({"y": 0}, order_by="-x", per_page=1)
        assert ([2], 2, [0]) == ([p.x for p in page], page.total, [p.x for p in page.next()])
        assert [0, 2] == sorted(point.x for point in read.stream({"y": 0}, chunk=1))
        with pytest.raises(UnknownField):
            read.count({"z": 1})


def test_list_of_all_has_a_limit(memory: Any) -> None:
    """Above 1000 rows a list of all needs a limit, or None on purpose."""
    with memory.session() as session:
        read, write = PointReadDriver(session), PointWriteDriver(session)
        write.bulk_insert({"x": x, "y": 0} for x in range(1000))
        assert 1000 == len(read.list_all())
        write.create(x=1000)
        with pytest.raises(InvalidArgument, match="more than 1000 instances of Point"):
            read.list_all()
        assert 1001 == len(read.list_all(limit=None))
        assert [0, 1] == [point.x for point in read.list_all(limit=2)]
        assert 1 == len(read.list_all({"y": 7}))


def test_reading_flushes_nothing(points: Any) -> None:
    """A read driver has no hand in what the caller has not flushed."""
    with points.session() as session:
        session.add(Point(x=100, y=0))
        read = PointReadDriver(session)
        assert 4 == read.count()
        assert not read.check_exists({"x": 100})
        assert read.find_by(x=100) is None
        assert 4 == len(read.list_all())
        assert 4 == read.paginate().total
        assert 4 == len(list(read.stream()))
        assert 4 == len(read.session.scalars(sa.select(Point)).all())
        assert 4 == read.session.scalar(sa.select(sa.func.count()).select_from(Point))
        assert 4 == len(read.session.execute(sa.select(Point.x)).all())
        assert read.session.get(Point, 10**6) is None
        with pytest.raises(NotFound):
            read.get_by_id(10**6)
        assert 1 == len(session.new)


@pytest.mark.parametrize(
    "statement",
    [
        sa.delete(Point),
        sa.insert(Point).values(x=1),
        sa.update(Point).values(x=1),
        sa.text("DELETE FROM point"),
        sa.select(sa.delete(Point).returning(Point.x).cte()),
        sa.select(Point.x).where(Point.x.in_(sa.select(sa.delete(Point).returning(Point.x).cte()))),
    ],
    ids=["delete", "insert", "update", "text", "cte", "nested"],
)
def test_read_driver_refuses_to_change_data(points: Any, statement: Any) -> None:
    """Nothing that changes data gets through the session of a read driver."""
    with points.session() as session:
        read = PointReadDriver(session)
        for run in (read.session.execute, read.session.scalars, read.session.scalar):
            with pytest.raises(ReadOnlyError, match="WriteDriver"):
                run(statement)
        assert 4 == read.count()


@pytest.mark.parametrize(
    "inside",
    [
        sa.select(sa.delete(Point).returning(Point.x).cte("gone").c.x),
        sa.select(
            sa.text("DELETE FROM point RETURNING x").columns(sa.column("x", sa.Integer)).cte().c.x
        ),
    ],
    ids=["delete", "text"],
)
def test_read_driver_refuses_a_filter_that_changes_data(points: Any, inside: Any) -> None:
    """No filter and no order changes data on the way, in whatever form it is given."""
    with points.session() as session:
        read = PointReadDriver(session)
        for filter_by in (Point.x.in_(inside), {"x": inside.scalar_subquery()}):
            for run in (
                read.count,
                read.check_exists,
                read.find_by,
                read.list_all,
                read.paginate,
                read.stream,
            ):
                with pytest.raises(ReadOnlyError, match="WriteDriver"):
                    run(filter_by)
        with pytest.raises(ReadOnlyError):
            read.find_by(x=inside.scalar_subquery())
        for run in (read.list_all, read.paginate):
            with pytest.raises(ReadOnlyError):
                run(order_by=inside.scalar_subquery())
        with pytest.raises(ReadOnlyError):
            read.session.scalars(inside)
        harmless = sa.text("SELECT x FROM point").columns(sa.column("x", sa.Integer)).cte()
        assert 4 == read.count(Point.x.in_(sa.select(harmless.c.x)))


ALL = sa.select(Point.x)


@pytest.mark.parametrize(
    "statement",
    [
        ALL.where(sa.text("true; DELETE FROM point")),
        ALL.where(sa.text("x = '\\'; DELETE FROM point; --'")),
        ALL.where(
            sa.text("x IN (WITH gone AS (DELETE FROM point RETURNING x) SELECT x FROM gone)")
        ),
        ALL.order_by(sa.text("x; UPDATE point SET x = 1")),
        ALL.add_columns(sa.text("1 INTO copied")),
        ALL.add_columns(sa.literal_column("1 INTO copied")),
        ALL.prefix_with("1; DELETE FROM point; SELECT"),
        ALL.with_statement_hint("; DELETE FROM point"),
        sa.union_all(ALL, ALL.where(sa.text("true; DELETE FROM point"))),
    ],
)
def test_read_driver_refuses_text_that_writes(memory: Any, statement: Any) -> None:
    """A text in a select neither writes nor begins a second statement, wherever it stands."""
    with memory.session() as session:
        with pytest.raises(ReadOnlyError, match="WriteDriver"):
            PointReadDriver(session).session.execute(statement)


@pytest.mark.parametrize(
    "text",
    [
        "x <> -1 AND 'a; DELETE FROM point' <> 'b'",
        "replace('it''s; into', 'a', 'b') <> ''",
        "x > -1 /* ; */ -- ; into",
        "x IS NOT NULL AND 'x' <> 'update point set x'",
    ],
)
def test_read_driver_takes_text_that_reads(points: Any, text: str) -> None:
    """What looks like a change in a literal or a comment is none."""
    with points.session() as session:
        assert 4 == PointReadDriver(session).count(
            sa.and_(Point.x == Point.x, sa.text(text + "\n"))
        )


@pytest.mark.parametrize("limit", [-1, "1", True, 1.5])
def test_limit_of_a_list(memory: Any, limit: Any) -> None:
    """A limit that is no number of rows is an error that says so."""
    with memory.session() as session:
        with pytest.raises(InvalidArgument, match="limit is a number of rows"):
            PointReadDriver(session).list_all(limit=limit)
        assert [] == PointReadDriver(session).list_all(limit=0)


def test_limit_beyond_all_rows(points: Any) -> None:
    """A limit larger than a database can count is none."""
    with points.session() as session:
        assert 4 == len(PointReadDriver(session).list_all(limit=10**30))


@pytest.mark.parametrize("name", ["add", "delete", "flush", "commit", "merge", "connection"])
def test_read_driver_has_no_way_to_write(points: Any, name: str) -> None:
    """What a session could write with is not there, and says why."""
    with points.session() as session:
        with pytest.raises(ReadOnlyError, match=rf"{name}\(\) is not there in a ReadDriver"):
            getattr(PointReadDriver(session).session, name)
        with pytest.raises(AttributeError):
            PointReadDriver(session).session.nonsense  # noqa: B018


def test_writing(points: Any) -> None:
    """A write driver flushes each step, and its commit stores all of it."""
    with points.session() as session:
        write = PointWriteDriver(session)
        read = PointReadDriver(session)
        one = read.find_by(x=0)
        assert one is not None
        assert one is write.update(one, {"x": 50})
        assert read.check_exists({"x": 50})
        made, created = write.get_or_create({"x": 60}, y=1)
        assert created
        assert (made, False) == write.get_or_create({"x": 60})
        write.delete(made)
        assert not read.check_exists({"x": 60})
        assert 2 == write.bulk_insert([{"x": 70, "y": 1}, {"x": 71, "y": 1}])
        write.commit()
    with points.session() as session:
        assert [1, 2, 3, 50, 70, 71] == sorted(p.x for p in PointReadDriver(session).list_all())


def test_upsert(points: Any) -> None:
    """A write driver inserts rows and changes those that exist."""
    with points.session() as session:
        write, read = AirportWriteDriver(session), AirportReadDriver(session)
        write.create(code="EPWA", name="Chopin")
        assert 1 == writer(Leg, session).upsert(
            [{"number": 1, "origin": "A"}], by=["number", "origin"]
        )
        leg = writer(Leg, session).upsert({"number": 1, "origin": "A"}, by=["origin", "number"])
        assert 1 == leg.number
        assert "Chopin" == read.get_by_id("EPWA").name


def test_writing_what_is_of_another_model(memory: Any) -> None:
    """An instance of another model is refused, and one of no session."""
    with memory.session() as session:
        point: Any = PointWriteDriver(session).create(x=1)
        with pytest.raises(Misuse, match="AirportWriteDriver writes Airport, not Point"):
            AirportWriteDriver(session).update(point, {})
        with pytest.raises(Misuse, match="writes Airport, not Point"):
            AirportWriteDriver(session).delete(point)
        with pytest.raises(UnknownField):
            PointWriteDriver(session).update(point, {"z": 1})


def test_read_only_session(points: Any) -> None:
    """On a read-only session a flush with changes is refused before the server would."""
    with points.session(read_only=True) as session:
        assert 4 == PointReadDriver(session).count()
        with pytest.raises(ReadOnlyError):
            PointWriteDriver(session).create(x=9)


def test_scoped_session_behind_a_driver(points: Any) -> None:
    """A driver takes a scoped session, and works with the session of its thread."""
    scoped = ScopedSession(points.get_session)
    try:
        assert 4 == PointReadDriver(scoped).count()
        assert PointWriteDriver(scoped).create(x=9) in scoped
    finally:
        scoped.remove()
