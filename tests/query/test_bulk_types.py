"""bulk_insert: what is stored comes back, for values of any type and rows of any fields."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qapla_db import Database
from qapla_db.errors import InvalidRow
from qapla_db.query.bulk import FEW, bulk_insert
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.support import make_application


class Base(DeclarativeBase):
    """Base of the models here."""


class Size(enum.Enum):
    """Stored by name."""

    SMALL = 1
    LARGE = 2


class Backwards(sa.TypeDecorator[str]):
    """Text that is stored backwards."""

    impl = sa.String(200)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)[::-1]


def from_the_row(context: Any) -> str:
    """Make a default that looks at the rest of the row."""
    return f"of {context.get_current_parameters()['id']}"


class Thing(Base):
    """The types of every database, defaults of every kind, names that need quotes."""

    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column('a"b', sa.Text)
    backwards: Mapped[str | None] = mapped_column("select", Backwards)
    whole: Mapped[int | None] = mapped_column("100%", sa.BigInteger)
    real: Mapped[float | None] = mapped_column(sa.Double)
    amount: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 3))
    yes: Mapped[bool | None]
    day: Mapped[datetime.date | None]
    clock: Mapped[datetime.time | None]
    moment: Mapped[datetime.datetime | None]
    size: Mapped[Size | None]
    data: Mapped[Any | None] = mapped_column(sa.JSON)
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    key: Mapped[uuid.UUID | None]
    made: Mapped[str | None] = mapped_column(sa.String(40), default=from_the_row)
    server: Mapped[str] = mapped_column(sa.String(9), server_default="dflt")
    once: Mapped[int] = mapped_column(default=3)
    sql: Mapped[str] = mapped_column(sa.String(9), default=sa.func.lower("LOWER"))


class Told(Base):
    """A type that is given a None as it is, and one that cannot be given any."""

    __tablename__ = "told"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(sa.String(20).evaluates_none())
    w: Mapped[int | None]
    path: Mapped[str | None] = mapped_column(
        sa.String(20).with_variant(postgresql.JSONPATH(), "postgresql")
    )


class Special(Base):
    """The types of PostgreSQL alone, in a schema."""

    __tablename__ = "special"
    __table_args__ = {"schema": "of its own"}
    id: Mapped[int] = mapped_column(sa.Sequence("special_ids"), primary_key=True)
    aware: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    numbers: Mapped[list[int] | None] = mapped_column(postgresql.ARRAY(sa.Integer))
    words: Mapped[list[str] | None] = mapped_column(postgresql.ARRAY(sa.Text))
    data: Mapped[Any | None] = mapped_column(postgresql.JSONB)
    span: Mapped[datetime.timedelta | None] = mapped_column(sa.Interval)
    size: Mapped[Size | None] = mapped_column(sa.Enum(Size, name="of_size"))
    naive: Mapped[datetime.datetime | None]
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    double: Mapped[int | None] = mapped_column(sa.Computed("small * 2"))


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
moments = st.datetimes(datetime.datetime(1000, 1, 1)).map(lambda one: one.replace(microsecond=0))
things: dict[str, st.SearchStrategy[Any]] = {
    "text": words,
    "backwards": words,
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(-1e300, 1e300, allow_nan=False).map(lambda one: one + 0.0),
    "amount": st.integers(-(10**9), 10**9).map(lambda one: decimal.Decimal(one).scaleb(-3)),
    "yes": st.booleans(),
    "day": st.dates(datetime.date(1000, 1, 1)),
    "clock": st.times().map(lambda one: one.replace(microsecond=0)),
    "moment": moments,
    "size": st.sampled_from(Size),
    "data": documents,
    "blob": st.binary(max_size=20),
    "key": st.uuids(version=4),
    "made": words,
    "server": st.just("given"),
    "once": st.integers(-9, 9),
    "sql": st.just("given"),
}
required = ("server", "once", "sql")
specials: dict[str, st.SearchStrategy[Any]] = {
    "aware": st.datetimes(
        datetime.datetime(1000, 1, 1),
        timezones=st.integers(-800, 800).map(
            lambda one: datetime.timezone(datetime.timedelta(minutes=one))
        ),
    ),
    "numbers": st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=4),
    "words": st.lists(st.none() | words, max_size=4),
    "data": documents,
    "span": st.timedeltas(datetime.timedelta(-99999), datetime.timedelta(99999)),
    "size": st.sampled_from(Size),
    "naive": st.datetimes(datetime.datetime(1, 1, 2)).map(lambda one: one.replace(fold=0)),
    "small": st.integers(-(2**15), 2**15 - 1),
}
ROWS = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def rows_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Make rows that may lack any field, or have a None."""
    optional = {name: one if name in required else st.none() | one for name, one in fields.items()}
    return st.lists(st.fixed_dictionaries({}, optional=optional), max_size=6)


@pytest.fixture
def database(each_url: sa.URL) -> Iterator[Database]:
    with make_application({"main": each_url}) as app:
        Base.metadata.create_all(
            app.dbs["main"].engine, [Thing.metadata.tables[name] for name in ("order", "told")]
        )
        yield app.dbs["main"]


@pytest.fixture
def postgresql_database(postgresql_database_url: sa.URL) -> Iterator[Database]:
    with make_application({"main": postgresql_database_url}) as app:
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text('CREATE SCHEMA "of its own"'))
        Base.metadata.create_all(app.dbs["main"].engine)
        yield app.dbs["main"]


def many(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Repeat rows until there are enough for COPY."""
    return [dict(row) for row in rows * (FEW // len(rows) + 1)] if rows else []


@pytest.mark.parametrize("few", [True, False])
@given(rows=rows_of(things))
@ROWS
def test_things_come_back(database: Database, few: bool, rows: list[dict[str, Any]]) -> None:
    """Any values in any mixture of fields are read as they were given; the rest are defaults."""
    rows = rows if few else many(rows)
    for number, row in enumerate(rows):
        row["id"] = number
    with database.session() as session:
        assert len(rows) == bulk_insert(session, Thing, iter(rows))
        stored = session.scalars(sa.select(Thing).order_by(Thing.id)).all()
        for number, (row, thing) in enumerate(zip(rows, stored, strict=True)):
            defaults = {"made": f"of {number}", "server": "dflt", "once": 3, "sql": "lower"}
            expected = {**dict.fromkeys(things), **defaults, **row}
            assert expected == {name: getattr(thing, name) for name in expected}


@given(rows=rows_of(specials))
@ROWS
def test_specials_come_back(postgresql_database: Database, rows: list[dict[str, Any]]) -> None:
    """The types of PostgreSQL, a sequence, a computed column, and a schema."""
    rows = many(rows)
    with postgresql_database.session() as session:
        assert len(rows) == bulk_insert(session, Special, iter(rows))
        stored = session.scalars(sa.select(Special).order_by(Special.id)).all()
        expected = [{**dict.fromkeys(specials), **row} for row in rows]
        found = [{name: getattr(one, name) for name in specials} for one in stored]
        assert sorted(map(_shown, expected)) == sorted(map(_shown, found))
        assert all(one.double == (one.small and one.small * 2) for one in stored)


def _shown(row: dict[str, Any]) -> str:
    aware = row["aware"]
    data = json.dumps(row["data"], sort_keys=True)
    return repr(
        {**row, "aware": aware and aware.astimezone(datetime.UTC).replace(fold=0), "data": data}
    )


def test_none_and_null_of_json(database: Database) -> None:
    """A None is a JSON null where the type says so; what is missing, and null(), is NULL."""
    given: list[dict[str, Any]] = [{"data": None}, {}, {"data": sa.null()}]
    rows = [{"id": at, **given[at % 3]} for at in range(60)]
    with database.session() as session:
        bulk_insert(session, Thing, rows)
        is_null = sa.select(Thing.id).where(Thing.data.is_(sa.null())).order_by(Thing.id)
        assert [at for at in range(60) if at % 3] == list(session.scalars(is_null))


def test_a_text_that_may_be_none_is_missing(database: Database) -> None:
    """What some rows lack is NULL, also where the type is told to be given a None."""
    for count in (2, 2 * FEW):
        rows = [{"id": at, "text": "a"} if at % 2 else {"id": at, "w": at} for at in range(count)]
        with database.session() as session:
            assert count == bulk_insert(session, Told, rows)
            texts = session.scalars(sa.select(Told.text).order_by(Told.id))
            assert [None, "a"] * (count // 2) == list(texts)


def test_a_path_that_is_missing(postgresql_database: Database) -> None:
    """A path in JSON is NULL in rows that lack it."""
    for count in (2, 2 * FEW):
        rows = [{"id": at, "path": "$.a"} if at % 2 else {"id": at} for at in range(count)]
        with postgresql_database.session() as session:
            bulk_insert(session, Told, [{"id": -1}])
            assert count == bulk_insert(session, Told, rows)
            missing = sa.select(sa.func.count()).where(Told.path.is_(None))
            assert 1 + count // 2 == session.scalar(missing)


def test_a_nul_in_a_text_names_row_and_field(postgresql_database: Database) -> None:
    """PostgreSQL stores no NUL character; the row that has one is named."""
    rows = [{"id": at, "text": "x"} for at in range(60)]
    rows[44]["text"] = "a\x00b"
    with postgresql_database.session() as session:
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Thing, rows)
    assert 44 == caught.value.row


def test_half_a_character_names_the_row(database: Database) -> None:
    """Text that cannot be encoded is found before it is sent."""
    rows = [{"id": at, "text": "x"} for at in range(60)]
    rows[44]["text"] = "\ud800"
    with database.session() as session:
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Thing, rows)
    assert 44 == caught.value.row


@pytest.mark.parametrize("value", [2**15, "many", 1.5])
def test_a_number_that_does_not_fit(postgresql_database: Database, value: Any) -> None:
    """Nothing is cut or rounded to fit: row and field are named."""
    rows: list[dict[str, Any]] = [{"small": 1} for _ in range(60)]
    rows[33]["small"] = value
    with postgresql_database.session() as session:
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Special, rows)
    assert 33 == caught.value.row


def next_in_line(context: Any) -> int:
    """Make a default with the connection of the row."""
    return int(context.connection.scalar(sa.select(sa.func.count()).select_from(Thing)))


def not_for_nine(context: Any) -> int:
    """Make a default that one of the rows cannot have."""
    if context.get_current_parameters()["id"] == 9:
        raise ValueError("not for nine")
    return 1


class Asking(Base):
    """A default that asks the database."""

    __tablename__ = "asking"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(default=next_in_line)


class Picky(Base):
    """A default that may fail."""

    __tablename__ = "picky"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(default=not_for_nine)


@pytest.mark.parametrize("on_conflict", ["error", "update"])
def test_a_default_may_use_the_connection(database: Database, on_conflict: Any) -> None:
    """A default that asks the database gets its answer, in whatever way the rows are stored."""
    Base.metadata.create_all(database.engine, [Base.metadata.tables["asking"]])
    by = "id" if on_conflict == "update" else None
    rows = [{"id": at} for at in range(1200)]
    with database.session() as session:
        session.execute(sa.insert(Thing).values(id=1))
        assert 1200 == bulk_insert(session, Asking, rows, chunk=700, on_conflict=on_conflict, by=by)
        assert [1] == list(session.scalars(sa.select(Asking.place).distinct()))


@pytest.mark.parametrize("count", [10, 100])
def test_a_default_that_fails_names_the_row(database: Database, count: int) -> None:
    """An error of a function that makes a default is one of its row, in every way of storing."""
    Base.metadata.create_all(database.engine, [Base.metadata.tables["picky"]])
    with database.session() as session:
        with pytest.raises(InvalidRow, match=r"^row 9\b.*not for nine") as caught:
            bulk_insert(session, Picky, [{"id": at} for at in range(count)])
        assert 9 == caught.value.row
        assert 0 == session.scalar(sa.select(sa.func.count()).select_from(Picky))


class Amount(Base):
    """A number without bounds."""

    __tablename__ = "amount"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    amount: Mapped[decimal.Decimal] = mapped_column(sa.Numeric)


def test_numbers_of_any_size(postgresql_database: Database) -> None:
    """A number is stored to its last digit, or refused with its row, and never as another one."""
    many = [{"id": at, "amount": decimal.Decimal(1)} for at in range(60)]
    with postgresql_database.session() as session:
        many[7]["amount"] = decimal.Decimal("1E+100000")
        assert 60 == bulk_insert(session, Amount, many)
        assert many[7]["amount"] == session.get_one(Amount, 7).amount
        session.rollback()
        many[7]["amount"] = decimal.Decimal("1E+200000")
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Amount, many)
    assert 7 == caught.value.row


def test_a_computed_field_cannot_be_given(postgresql_database: Database) -> None:
    """What the database computes is refused with the row."""
    with postgresql_database.session() as session:
        with pytest.raises(InvalidRow, match="given by the database") as caught:
            bulk_insert(session, Special, [{"small": 1, "double": 2}])
    assert (0, "double") == (caught.value.row, caught.value.field)


def test_moments_with_an_offset_in_a_column_without(postgresql_database: Database) -> None:
    """The offset is not dropped: the moment is stored as INSERT would store it."""
    zone = datetime.timezone(datetime.timedelta(hours=5))
    moment = datetime.datetime(2026, 1, 2, 12, tzinfo=zone)
    with postgresql_database.session() as session:
        session.execute(sa.text("SET LOCAL TimeZone = 'Europe/Amsterdam'"))
        bulk_insert(session, Special, [{"naive": moment}])
        bulk_insert(session, Special, [{"naive": moment}] * 60)
        stored = set(session.scalars(sa.select(Special.naive)))
    assert {datetime.datetime(2026, 1, 2, 8)} == stored


def test_row_security_is_kept(postgresql_database: Database) -> None:
    """A table with rules, which COPY would pass by, is stored through INSERT."""
    with postgresql_database.session() as session:
        session.execute(
            sa.text(
                'CREATE RULE nothing AS ON INSERT TO "order" WHERE NEW.id > 50 DO INSTEAD NOTHING'
            )
        )
        bulk_insert(session, Thing, [{"id": at} for at in range(60)])
        assert 51 == session.scalar(sa.select(sa.func.count()).select_from(Thing))


def test_in_a_sandbox(database: Database) -> None:
    """A test's sandbox rolls everything back, what came by COPY too, and errors as well."""
    rows = [{"id": at, "text": f"t{at}"} for at in range(60)]
    count = sa.select(sa.func.count()).select_from(Thing)
    with sandbox(database):
        with database.session() as session:
            assert 60 == bulk_insert(session, Thing, rows)
            with pytest.raises(Exception, match="row 0"):
                bulk_insert(session, Thing, rows)
            session.commit()
        with database.session() as session:
            assert 60 == session.scalar(count)
            assert 60 == bulk_insert(session, Thing, rows, on_conflict="update", by="id")
            session.rollback()
            assert 60 == session.scalar(count)
    with database.session() as session:
        assert 0 == session.scalar(count)
