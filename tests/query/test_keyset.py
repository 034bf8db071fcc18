"""Pages by position."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import pickle
import re
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
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
)
from sqlalchemy.types import TypeDecorator

from qapla_db.errors import InvalidArgument, Misuse, UnknownField
from qapla_db.query.keyset import KeysetPage, paginate_keyset
from tests.support import make_application


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


class Long(Base):
    """A text longer than a token."""

    __tablename__ = "long"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(sa.Text)


@pytest.fixture
def session(each_url: sa.URL) -> Iterator[Session]:
    """A session of a database with the tables of these models."""
    database = make_application({"main": each_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as found:
        yield found
    database.dispose()


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


@pytest.fixture
def things(session: Session) -> Session:
    """A session with ten things."""
    session.add_all(
        Thing(batch=1, number=f"{number:02}", a=number, b=number % 2, c=number % 3)
        for number in range(10)
    )
    session.flush()
    return session


NUMBERS = sa.select(Thing.number)


def test_flags_and_dict(things: Session) -> None:
    """The first page has no page before it, the last none after it, and a dict says so."""
    first = paginate_keyset(things, NUMBERS, order_by="a", per_page=6)
    assert (True, False) == (first.has_next, first.has_prev)
    last = paginate_keyset(things, NUMBERS, order_by="a", per_page=6, after=first.next_token)
    assert (False, True) == (last.has_next, last.has_prev)
    assert 4 == len(last)
    assert {
        "items": ["06", "07", "08", "09"],
        "per_page": 6,
        "has_next": False,
        "next_token": None,
        "has_prev": True,
        "prev_token": last.prev_token,
    } == last.as_dict()
    assert ["6", "7"] == last.as_dict(lambda number: number.lstrip("0"))["items"][:2]


def test_full_last_page_has_no_next(things: Session) -> None:
    """A last page that is full is known to be the last."""
    assert [5, 5] == [len(page) for page in walk(things, NUMBERS, order_by="a", per_page=5)]


def test_nothing_to_show(session: Session) -> None:
    """Without rows there is one empty page, with no way on or back."""
    page = paginate_keyset(session, NUMBERS, order_by="a")
    assert ([], None, None) == (list(page), page.next_token, page.prev_token)
    assert page  # as an object it is there


def test_deleted_rows_do_no_harm(things: Session) -> None:
    """A page goes on behind a row that is gone, and one goes back from an empty page."""
    first = paginate_keyset(things, NUMBERS, order_by="a", per_page=5)
    things.execute(sa.delete(Thing).where(Thing.a.in_([4, 5])))
    rest = paginate_keyset(things, NUMBERS, order_by="a", after=first.next_token)
    assert ["06", "07", "08", "09"] == rest.items
    things.execute(sa.delete(Thing).where(Thing.a > 4))
    empty = paginate_keyset(things, NUMBERS, order_by="a", after=first.next_token)
    assert [] == empty.items
    things.add(Thing(batch=1, number="04", a=4))
    back = paginate_keyset(things, NUMBERS, order_by="a", before=empty.prev_token)
    assert ["00", "01", "02", "03", "04"] == back.items


def test_rows_of_several_columns(things: Session) -> None:
    """A select of several columns gives rows of just these columns."""
    page = paginate_keyset(things, sa.select(Thing.number, Thing.a), order_by="-c", per_page=2)
    assert [("08", 8), ("05", 5)] == page.items
    assert {"number": "08", "a": 8} == dict(page.items[0]._mapping)
    assert page.as_dict()["items"][1] == {"number": "05", "a": 5}
    assert ("08", 8) == (page.items[0]._mapping[Thing.number], page.items[0]._mapping[Thing.a])
    assert ("number", "a") == page.items[0]._fields
    assert page.items == pickle.loads(pickle.dumps(page.items))
    statement = sa.select(Thing, sa.func.lower(Thing.number).label("low"))
    row = paginate_keyset(things, statement, order_by="a", per_page=2).items[1]
    assert ("01", "01", "01") == (row.Thing.number, row._mapping[Thing].number, row.low)


def test_model(things: Session) -> None:
    """A model stands for a select of it."""
    pages = walk(things, Thing, order_by="-a", per_page=4)
    assert list(range(9, -1, -1)) == [thing.a for thing in flat(pages)]
    with pytest.raises(Misuse, match=r"mapped class or a select.*not Base;"):
        paginate_keyset(things, Base, order_by="a")


def test_expressions(things: Session) -> None:
    """What is ordered by may be computed."""
    order = [sa.func.lower(Thing.number).desc(), Thing.a + 1]
    assert [f"{number:02}" for number in range(9, -1, -1)] == flat(
        walk(things, NUMBERS, order_by=order, per_page=3)
    )


def test_filter_stays(things: Session) -> None:
    """The conditions of the select hold on every page."""
    pages = walk(things, NUMBERS.where(Thing.b == 1), order_by="-c", per_page=2)
    assert ["05", "07", "01", "09", "03"] == flat(pages)


def test_stale_instances(things: Session) -> None:
    """A token holds what the database has, and not what an instance was changed to."""
    with things.no_autoflush:
        first = paginate_keyset(things, sa.select(Thing), order_by="a", per_page=3)
        changed = first.items[2]
        changed.a = 1000
        token = paginate_keyset(things, sa.select(Thing), order_by="a", per_page=3).next_token
        assert ["03"] == paginate_keyset(
            things, NUMBERS, order_by="a", per_page=1, after=token
        ).items
        things.expire(changed)


def test_joined_eager_loading(session: Session) -> None:
    """A collection that is loaded with a join does not change what is on a page."""
    session.add_all(
        Owner(id=number, name="x", ships=[Ship(id=10 * number + one) for one in range(3)])
        for number in range(1, 6)
    )
    session.flush()
    session.expunge_all()
    statement = sa.select(Owner).options(joinedload(Owner.ships))
    pages = walk(session, statement, order_by="-name", per_page=2)
    assert [[5, 4], [3, 2], [1]] == [[owner.id for owner in page] for page in pages]
    assert all(len(owner.__dict__["ships"]) == 3 for owner in flat(pages))


def test_outer_join(session: Session) -> None:
    """What an outer join leaves empty is ordered as NULL, though its column has none."""
    session.add_all(Owner(id=number, name="x") for number in range(6))
    session.add_all(Ship(id=number, owner_id=number) for number in (1, 2, 4))
    session.flush()
    statement = sa.select(Owner.id, Ship.id).outerjoin(Ship)
    for order in (["-name"], [Ship.id], [Ship.id.desc()]):
        whole = paginate_keyset(session, statement, order_by=order, per_page=99).items
        pages = walk(session, statement, order_by=order, per_page=2)
        assert 6 == len(whole)
        assert whole == flat(pages)


@pytest.fixture
def fleet(session: Session) -> Session:
    """A session with three owners of one name, of five ships each."""
    session.add_all(
        Owner(id=number, name="x", ships=[Ship(id=10 * number + one) for one in range(5)])
        for number in range(1, 4)
    )
    session.flush()
    return session


COUNTED = sa.select(Ship.owner_id, sa.func.count().label("n")).group_by(Ship.owner_id).subquery()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (sa.select(Owner.id).join(Ship), 15),
        (sa.select(Owner.id).where(Owner.id == Ship.owner_id), 15),
        (sa.select(Owner.id).select_from(Ship).join(Owner), 15),
        (sa.select(Owner.id).join(aliased(Ship)), 15),
        (sa.select(Owner.id).join(Owner.ships).join(Ship.owner.of_type(aliased(Owner))), 15),
        (sa.select(Owner.id, COUNTED.c.n).join(COUNTED, COUNTED.c.owner_id == Owner.id), 3),
    ],
)
def test_joins_lose_no_row(fleet: Session, statement: Any, expected: int) -> None:
    """A join that repeats a primary key has all its rows on the pages, in both directions."""
    whole = paginate_keyset(fleet, statement, order_by="-name", per_page=99).items
    pages = walk(fleet, statement, order_by="-name", per_page=2)
    assert expected == len(whole)
    assert whole == flat(pages)
    back = walk_back(fleet, statement, pages[-1].prev_token, order_by="-name", per_page=2)
    assert whole == flat([*back, pages[-1]])


def test_aliases(fleet: Session) -> None:
    """An alias has pages, also one of a subquery with a limit, as its refusal advises."""
    limited = sa.select(Ship).order_by(Ship.id.desc()).limit(7)
    with pytest.raises(InvalidArgument, match="aliased"):
        paginate_keyset(fleet, limited, order_by="id")
    ship = aliased(Ship, limited.subquery())
    statement: sa.Select[Any]
    for statement, expected in ((sa.select(ship), 7), (sa.select(aliased(Ship)), 15)):
        pages = walk(fleet, statement, order_by=["-owner_id", "id"], per_page=2)
        assert expected == len(flat(pages))
        assert sorted(flat(pages), key=lambda one: (-one.owner_id, one.id)) == flat(pages)
        last = pages[-1].prev_token
        back = walk_back(fleet, statement, last, order_by=["-owner_id", "id"], per_page=2)
        assert flat(pages[:-1]) == flat(back)


def test_joins_of_instances(fleet: Session) -> None:
    """An instance that a join repeats is on the pages as often; a plain select goes on alone."""
    assert 3 == len(flat(walk(fleet, sa.select(Owner), order_by="name", per_page=2)))
    joined = sa.select(Owner).join(Owner.ships)
    for statement in (joined, joined.options(joinedload(Owner.ships))):
        pages = walk(fleet, statement, order_by="name", per_page=2)
        assert [1] * 5 + [2] * 5 + [3] * 5 == [owner.id for owner in flat(pages)]


def test_order_by_a_table_that_is_not_joined(fleet: Session) -> None:
    """Pages are not multiplied by a table that only the order names: it is to be joined."""
    others = sa.select(Owner.id.label("number")).subquery()
    for order in (Owner.name, Owner.name.desc(), sa.func.lower(Owner.name), others.c.number):
        with pytest.raises(
            InvalidArgument, match=r"(owner\.name|number).* join it: select\(Ship\)"
        ):
            paginate_keyset(fleet, sa.select(Ship), order_by=[order, "id"])
    alias = aliased(Owner)
    with pytest.raises(InvalidArgument, match="join it"):
        paginate_keyset(fleet, sa.select(Ship).join(Ship.owner), order_by=alias.name)
    with pytest.raises(InvalidArgument, match="join it"):
        paginate_keyset(fleet, sa.select(Ship.id), order_by=Owner.name)
    looked_up = sa.select(Owner.name).where(Owner.id == Ship.owner_id).scalar_subquery()
    joined: list[tuple[Any, Any]] = [
        (sa.select(Ship).join(Ship.owner), Owner.name),
        (sa.select(Ship.id).join(alias, Ship.owner), alias.name),
        (sa.select(Ship).where(Ship.owner_id == Owner.id), Owner.name),
        (sa.select(Ship).select_from(sa.join(Ship, Owner)), Owner.__table__.c.name),
        (sa.select(Ship), looked_up),
    ]
    for statement, order in joined:
        assert 15 == len(flat(walk(fleet, statement, order_by=[order], per_page=4))), statement


def test_repeated_positions(fleet: Session) -> None:
    """Rows that nothing tells apart are refused before one is lost, with what to do."""
    twice = sa.union_all(sa.select(Ship.owner_id), sa.select(Ship.owner_id)).subquery()
    statement = sa.select(Owner).join(twice, twice.c.owner_id == Owner.id)
    with pytest.raises(InvalidArgument, match=r"share a position.*EXISTS"):
        paginate_keyset(fleet, statement, order_by="name", per_page=1)
    series = sa.select(Owner.id, sa.func.generate_series(1, 5))
    with pytest.raises(InvalidArgument, match="several rows of one"):
        paginate_keyset(fleet, series, order_by="name")
    eager = sa.select(Owner).join(Owner.ships).options(contains_eager(Owner.ships))
    with pytest.raises(InvalidArgument, match=r"fills Owner\.ships"):
        paginate_keyset(fleet, eager, order_by="name")


def test_refusals(things: Session) -> None:
    """What cannot be divided by position is refused with the reason."""
    page = paginate_keyset(things, NUMBERS, order_by="a", per_page=2)

    def refused(
        error: type[Exception], pattern: str, statement: Any = NUMBERS, **arguments: Any
    ) -> None:
        with pytest.raises(error, match=pattern):
            paginate_keyset(things, statement, **{"order_by": "a", **arguments})

    refused(InvalidArgument, "one token", after=page.next_token, before=page.next_token)
    refused(InvalidArgument, "order of its own", NUMBERS.order_by("a"))
    refused(InvalidArgument, "LIMIT or OFFSET", NUMBERS.limit(3))
    refused(InvalidArgument, "distinct", NUMBERS.distinct())
    refused(InvalidArgument, "grouped", sa.select(Thing.a).group_by(Thing.a))
    refused(InvalidArgument, "aggregated", sa.select(sa.func.max(Thing.a)))
    refused(InvalidArgument, "per_page", per_page=0)
    refused(InvalidArgument, "not known", order_by=sa.func.soundex(Thing.number))
    refused(UnknownField, "no field 'z'", order_by="z")
    refused(Misuse, "select", "SELECT 1")
    assert 3 == paginate_keyset(things, NUMBERS, order_by="a", per_page=7, max_per_page=3).per_page


def test_long_values(session: Session) -> None:
    """A row whose place in the order is too long for a token says what to order by."""
    session.add_all(Long(id=number, text="x" * 4000) for number in range(3))
    session.flush()
    with pytest.raises(InvalidArgument, match="too long"):
        paginate_keyset(session, sa.select(Long.id), order_by="text", per_page=1)
    order = sa.func.substr(Long.text, 1, 100)
    assert [0, 1, 2] == flat(walk(session, sa.select(Long.id), order_by=order, per_page=1))


@pytest.mark.parametrize("order", [["-c"], ["c", Thing.number.desc()], ["a"], ["-a", "b"]])
def test_index_is_used(postgresql_database_url: sa.URL, order: list[Any]) -> None:
    """Deep in 50,000 rows PostgreSQL begins a page within the index and reads only the page."""
    database = make_application({"main": postgresql_database_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as session:
        session.execute(
            sa.text(
                "INSERT INTO thing "
                "SELECT 1, to_char(n, 'FM000000'), nullif(n % 1000, 1), n, n % 10 "
                "FROM generate_series(1, 50000) n"
            )
        )
        for index in ("c, batch, number", "c, number DESC, batch DESC"):
            session.execute(sa.text(f"CREATE INDEX ON thing ({index})"))
        session.execute(sa.text("CREATE INDEX ON thing (a NULLS FIRST, batch, number)"))
        session.execute(
            sa.text("CREATE INDEX ON thing (a DESC NULLS LAST, b NULLS FIRST, batch, number)")
        )
        session.execute(sa.text("ANALYZE thing"))
        token = None
        for _ in range(9):
            page = paginate_keyset(
                session, NUMBERS, order_by=order, after=token, per_page=5000, max_per_page=5000
            )
            token = page.next_token
        token = paginate_keyset(session, NUMBERS, order_by=order, after=token).next_token
        queries: list[Any] = []

        def explain(connection: Any, cursor: Any, sql: str, values: Any, *rest: Any) -> None:
            found = connection.connection.driver_connection.execute(
                f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", values
            )
            queries.append("\n".join(row[0] for row in found))

        sa.event.listen(database.engine, "before_cursor_execute", explain)
        assert 10 == len(paginate_keyset(session, NUMBERS, order_by=order, after=token))
        sa.event.remove(database.engine, "before_cursor_execute", explain)
    database.dispose()
    assert 1 == len(queries)
    assert "Index Cond" in queries[0], queries[0]
    removed = [int(one) for one in re.findall(r"Rows Removed by Filter: (\d+)", queries[0])]
    assert sum(removed) < 100, queries[0]
