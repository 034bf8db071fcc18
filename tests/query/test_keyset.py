"""Pages by position."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
)
from sqlalchemy.types import TypeDecorator

from qapla_db.errors import InvalidArgument, InvalidToken, Misuse, UnknownField
from qapla_db.query.keyset import KeysetPage, paginate_keyset


class Base(DeclarativeBase):
    """Base of the models here."""


class Grade(enum.Enum):
    """Declared in another order than that of the names."""

    LOW = "l"
    HIGH = "h"
    MID = "m"


class Reversed(TypeDecorator[str]):
    """Text that is stored backwards."""

    impl = sa.String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value[::-1]

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value[::-1]


class Thing(Base):
    """Fields with ties and nulls, and a key of two columns."""

    __tablename__ = "thing"
    batch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int | None]
    c: Mapped[int] = mapped_column(default=0)


class Wide(Base):
    """A column of every type that can be ordered by."""

    __tablename__ = "wide"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    boolean: Mapped[bool | None]
    integer: Mapped[int | None] = mapped_column(sa.BigInteger)
    single: Mapped[float | None] = mapped_column(sa.Float(24))
    double: Mapped[float | None] = mapped_column(sa.Double)
    amount: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 4))
    inexact: Mapped[float | None] = mapped_column(sa.Numeric(24, 12, asdecimal=False))
    text: Mapped[str | None] = mapped_column(sa.String(40))
    fixed: Mapped[str | None] = mapped_column(sa.CHAR(8))
    day: Mapped[dt.date | None]
    moment: Mapped[dt.datetime | None]
    zoned: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    hour: Mapped[dt.time | None]
    span: Mapped[dt.timedelta | None]
    identity: Mapped[uuid.UUID | None]
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary(20))
    grade: Mapped[Grade | None]
    word: Mapped[str | None] = mapped_column(sa.Enum("zeta", "alpha", name="word"))
    mirrored: Mapped[str | None] = mapped_column(Reversed)


class Owner(Base):
    """The one side of a relationship."""

    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(20))
    ships: Mapped[list[Ship]] = relationship(back_populates="owner")


class Ship(Base):
    """The many side."""

    __tablename__ = "ship"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship(back_populates="ships")


@pytest.fixture
def session(each_url: sa.URL) -> Iterator[Session]:
    """A session of a database with the tables of these models."""
    with using(each_url) as found:
        yield found


class using:
    """The session of a database, whose tables are made here."""

    def __init__(self, url: sa.URL) -> None:
        backend_url = url.set(drivername=DRIVERS.get(url.get_backend_name(), url.drivername))
        self.engine = sa.create_engine(backend_url)

    def __enter__(self) -> Session:
        Base.metadata.create_all(self.engine)
        self.session = Session(self.engine)
        return self.session

    def __exit__(self, *error: object) -> None:
        self.session.close()
        self.engine.dispose()


DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}


def walk(session: Session, statement: Any, **arguments: Any) -> list[KeysetPage[Any]]:
    """All pages, from the first to the last."""
    pages = [paginate_keyset(session, statement, **arguments)]
    while pages[-1].next_token:
        assert len(pages) < 200
        pages.append(paginate_keyset(session, statement, after=pages[-1].next_token, **arguments))
    return pages


def walk_back(
    session: Session, statement: Any, token: str | None, **arguments: Any
) -> list[KeysetPage[Any]]:
    """All pages before a token, in their order."""
    pages: list[KeysetPage[Any]] = []
    while token:
        assert len(pages) < 200
        pages.insert(0, paginate_keyset(session, statement, before=token, **arguments))
        token = pages[0].prev_token
    return pages


def flat(pages: list[KeysetPage[Any]]) -> list[Any]:
    """The items of all pages."""
    return list(itertools.chain.from_iterable(pages))


small = st.none() | st.integers(0, 2)
rows = st.lists(st.tuples(small, small, st.integers(0, 1)), max_size=25)
orders = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from([None, "first", "last"])),
    max_size=3,
    unique_by=lambda one: one[0],
)


def by_names(order: list[Any]) -> list[Any]:
    """An order by the names of fields."""
    return [f"{'-' if descending else ''}{name}" for name, descending, _ in order]


def by_expressions(order: list[Any]) -> list[Any]:
    """An order by expressions, some of which say where nulls go."""
    found = []
    for name, descending, nulls in order:
        column: Any = getattr(Thing, name)
        clause = column.desc() if descending else column.asc()
        found.append(
            {"first": clause.nulls_first(), "last": clause.nulls_last()}.get(nulls, clause)
        )
    return found


def expected(things: list[Thing], order: list[Any], nulls_last: bool | None) -> list[Thing]:
    """The things in an order; ``nulls_last``: where a database puts nulls, ascending."""
    found = sorted(things, key=lambda one: (one.batch, one.number))
    if order and order[-1][1]:
        found.reverse()
    for name, descending, said in reversed(order):
        if nulls_last is None or said is None:
            last = (nulls_last or False) != descending
        else:
            last = said == "last"

        def key(one: Thing, name: str = name, first: bool = last != descending) -> Any:
            value = getattr(one, name)
            return (value is None) == first, value or 0

        found.sort(key=key, reverse=descending)
    return found


def check_walks(
    session: Session, values: Any, order: list[Any], named: bool, per_page: int, extra: Any
) -> None:
    """Pages in both directions are the sorted list, also when rows are stored in between."""
    session.execute(sa.delete(Thing))
    session.expunge_all()
    things = [
        Thing(batch=number % 2, number=f"n{number:02}", a=a, b=b, c=c)
        for number, (a, b, c) in enumerate(values)
    ]
    session.add_all(things)
    session.flush()
    last: bool | None = None if named else session.get_bind().dialect.name == "postgresql"
    arguments: dict[str, Any] = {
        "order_by": by_names(order) if named else by_expressions(order),
        "per_page": per_page,
    }
    if not named and session.get_bind().dialect.name == "mysql" and not order:
        arguments["order_by"] = []
    statement = sa.select(Thing)
    wanted = expected(things, order, last)
    pages = walk(session, statement, **arguments)
    assert wanted == flat(pages)
    assert all(per_page == len(page) for page in pages[:-1])
    assert wanted == flat(
        [*walk_back(session, statement, pages[-1].prev_token, **arguments), pages[-1]]
    )
    if len(pages) < 2:
        return
    added = Thing(batch=9, number="new", a=extra[0], b=extra[1], c=extra[2])
    session.add(added)
    session.flush()
    wanted = expected([*things, added], order, last)
    rest = paginate_keyset(session, statement, after=pages[0].next_token, **arguments)
    more = walk(session, statement, **arguments) if rest.next_token is None else None
    seen = [*pages[0], *rest] if more else None
    position = wanted.index(pages[0].items[-1]) + 1
    assert wanted[position : position + per_page] == rest.items
    assert seen is None or set(wanted) - {added} <= set(seen)


QUICK = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(rows, orders, st.booleans(), st.integers(1, 7), st.tuples(small, small, st.integers(0, 1)))
def test_pages_are_the_sorted_list(
    session: Session, values: Any, order: Any, named: bool, per_page: int, extra: Any
) -> None:
    """Whatever the order, ties, nulls and page size: the pages are the sorted rows, cut."""
    check_walks(session, values, order, named, per_page, extra)


TYPES: dict[str, list[Any]] = {
    "boolean": [False, True, None],
    "integer": [-(2**63), -1, 0, 1, 2**63 - 1, None],
    "single": [0.1, 0.2, 0.30000001192092896, 1e30, None],
    "double": [0.1, 0.1 + 2**-55, 1 / 3, 1e300, None],
    "amount": [decimal.Decimal("0.1"), decimal.Decimal("99999999.9999"), decimal.Decimal(-3), None],
    "inexact": [0.1, 123456789012.123456789, 1 / 3, None],
    "text": ["", "a", "B", "ä", "\U0001f596", "' OR 1=1 --", None],
    "fixed": ["ab", "abc", "b", None],
    "day": [dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31), None],
    "moment": [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 1), None],
    "zoned": [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2, 3)] + [None],
    "hour": [dt.time(0), dt.time(23, 59, 59), None],
    "span": [dt.timedelta(0), dt.timedelta(1, 2), dt.timedelta(400), None],
    "identity": [uuid.UUID(int=0), uuid.UUID(int=7), uuid.UUID(int=2**128 - 1), None],
    "blob": [b"", b"\0", b"\xff\xfe", None],
    "grade": [*Grade, None],
    "word": ["zeta", "alpha", None],
    "mirrored": ["ab", "ba", "cab", None],
}


@pytest.mark.parametrize("sign", ["", "-"])
def test_every_type(session: Session, sign: str) -> None:
    """Values of every type that can be ordered by come back from a token as they went in."""
    longest = max(map(len, TYPES.values())) * 2
    session.add_all(
        Wide(id=number, **{name: values[number % len(values)] for name, values in TYPES.items()})
        for number in range(longest)
    )
    session.flush()
    for name in TYPES:
        order = [f"{sign}{name}"]
        whole = paginate_keyset(session, sa.select(Wide.id), order_by=order, per_page=99).items
        assert list(range(longest)) == sorted(whole)
        pages = walk(session, sa.select(Wide.id), order_by=order, per_page=2)
        assert whole == flat(pages), name
        back = walk_back(
            session, sa.select(Wide.id), pages[-1].prev_token, order_by=order, per_page=2
        )
        assert whole == flat([*back, pages[-1]]), name
