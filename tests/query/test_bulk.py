"""bulk_insert: what is stored, how many rows that were, and what an error leaves behind."""

from __future__ import annotations

import contextlib
import datetime
import decimal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db import Database
from qapla_db.errors import (
    Conflict,
    InvalidArgument,
    InvalidRow,
    Misuse,
    ReadOnlyError,
    UnknownField,
    Unsupported,
)
from qapla_db.query.bulk import bulk_insert
from qapla_db.query.changing import bulk_update, upsert
from qapla_db.query.grouping import places
from tests.query.models import (
    Account,
    Airport,
    Animal,
    City,
    Colour,
    Dog,
    Everything,
    Leg,
    Point,
    Street,
    Truck,
)


class Other(DeclarativeBase):
    """Base of the model with two unique fields."""


class Badge(Other):
    """Two unique fields, of which one may be NULL."""

    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(sa.String(8), unique=True)
    alt: Mapped[int] = mapped_column(unique=True)


MANY = 120
"""Enough rows for the way that many take, which is not that of a few."""


def airports(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"code": f"C{at}", "name": f"Airport {at}"} for at in range(start, start + count)]


def codes(session: Any) -> list[str]:
    return list(session.scalars(sa.select(Airport.code).order_by(Airport.id)))


def names_of(session: Any) -> dict[str, str]:
    return {one.code: one.name for one in session.execute(sa.select(Airport.code, Airport.name))}


@pytest.mark.parametrize("count", [0, 1, MANY])
def test_rows_are_stored(database: Database, count: int) -> None:
    """Mappings become rows, in their order, and are counted."""
    with database.session() as session:
        assert count == bulk_insert(session, Airport, airports(count))
        session.commit()
        assert [row["code"] for row in airports(count)] == codes(session)


def test_instances_are_stored(database: Database) -> None:
    """New instances become rows and stay out of the session."""
    made = [Airport(**row) for row in airports(MANY)]
    with database.session() as session:
        assert MANY == bulk_insert(session, Airport, made)
        assert [row["code"] for row in airports(MANY)] == codes(session)
        assert made[0] not in session
        assert [] == list(session.new)


def test_a_dataclass_is_stored(database: Database) -> None:
    """Instances of a mapped dataclass get their key and their defaults."""
    with database.session() as session:
        assert MANY == bulk_insert(session, Point, [Point(x=at) for at in range(MANY)])
        assert (MANY, MANY * 7) == tuple(
            session.execute(sa.select(sa.func.count(Point.id), sa.func.sum(Point.y))).one()
        )


def test_an_instance_of_the_session_is_refused(database: Database) -> None:
    """An instance that is stored already, or will be, is no new row."""
    with database.session() as session:
        stored = Airport(code="A", name="a")
        session.add(stored)
        with pytest.raises(InvalidRow, match="twice") as caught:
            bulk_insert(session, Airport, [Airport(code="B", name="b"), stored])
        assert 1 == caught.value.row


def test_a_relationship_is_no_silent_null(memory: Database) -> None:
    """A relationship that is set is refused: its foreign key would not be."""
    street = Street(name="Main", city=City(code="X", name="x"))
    with memory.session() as session:
        with pytest.raises(InvalidRow, match="relationship") as caught:
            bulk_insert(session, Street, [street])
    assert (0, "city") == (caught.value.row, caught.value.field)


def test_names_of_columns_do_not_matter(database: Database) -> None:
    """Fields are the model's attributes, however their columns are named."""
    rows = [{"tenant": 1, "login": f"u{at}", "full_name": None} for at in range(MANY)]
    with database.session() as session:
        assert MANY == bulk_insert(session, Account, rows)
        found = session.scalars(sa.select(Account).where(Account.login == "u7")).one()
        assert (1, None, 1) == (found.tenant, found.full_name, found.changes)


def test_rows_may_differ_in_their_fields(database: Database) -> None:
    """A field that a row lacks gets the default, of Python or of the server."""
    rows = airports(MANY)
    for at in range(0, MANY, 2):
        rows[at] |= {"elevation": 5, "country": "NL"}
    for at in range(0, MANY, 3):
        rows[at]["id"] = 1000 + at
    with database.session() as session:
        assert MANY == bulk_insert(session, Airport, rows)
        stored = {one.code: one for one in session.scalars(sa.select(Airport))}
        assert (5, "NL", 1000) == (
            stored["C0"].elevation,
            stored["C0"].country,
            stored["C0"].id,
        )
        assert (0, None) == (stored["C1"].elevation, stored["C1"].country)


def test_a_key_of_none_is_given_by_the_database(database: Database) -> None:
    """A primary key of None means the same as none on every kind of database."""
    with database.session() as session:
        assert MANY == bulk_insert(
            session, Airport, [{"id": None, **row} for row in airports(MANY)]
        )
        assert MANY == len(codes(session))


def test_single_table_inheritance(database: Database) -> None:
    """The discriminator is set by the class, of the model or of each instance."""
    with database.session() as session:
        bulk_insert(session, Dog, [{"name": f"d{at}", "barks": True} for at in range(MANY)])
        bulk_insert(session, Animal, [Dog(name="Rex"), Animal(name="Tom")])
        assert MANY + 1 == session.scalar(sa.select(sa.func.count()).select_from(Dog))
        assert MANY + 2 == session.scalar(sa.select(sa.func.count()).select_from(Animal))


def test_joined_inheritance_is_refused(memory: Database) -> None:
    """A model of two tables is refused, with what to do instead."""
    with memory.session() as session:
        with pytest.raises(Unsupported, match="add_all"):
            bulk_insert(session, Truck, [{"plate": "X", "tons": 3}])


@pytest.mark.parametrize("count", [3, MANY])
@pytest.mark.parametrize("wrong", [2, None])
def test_a_conflict_has_its_row_and_leaves_nothing(
    database: Database, count: int, wrong: int | None
) -> None:
    """After a duplicate nothing is stored, and the transaction goes on."""
    rows = airports(count)
    rows[wrong or count - 1]["code"] = "TAKEN"
    with database.session() as session:
        session.add(Airport(code="TAKEN", name="there"))
        with pytest.raises(Conflict) as caught:
            bulk_insert(session, Airport, rows, chunk=50)
        assert (wrong or count - 1) == caught.value.row
        session.add(Airport(code="NEXT", name="goes on"))
        session.commit()
        assert ["TAKEN", "NEXT"] == codes(session)


@pytest.mark.parametrize("count", [3, MANY])
def test_a_missing_value_names_row_and_field(database: Database, count: int) -> None:
    """NULL where none may be is said with the row and the field."""
    rows = airports(count)
    rows[2]["name"] = None
    with database.session() as session:
        with pytest.raises(Conflict) as caught:
            bulk_insert(session, Airport, rows)
    assert (2, "name") == (caught.value.row, caught.value.field)


@pytest.mark.parametrize("on_conflict", ["error", "ignore", "update"])
def test_a_rule_of_the_table_names_the_row(database: Database, on_conflict: Any) -> None:
    """A row that breaks a CHECK is found, whatever happens to rows that exist."""
    rows = [{**row, "elevation": 1} for row in airports(MANY)]
    rows[77]["elevation"] = -5000
    by = "code" if on_conflict == "update" else None
    with database.session() as session:
        with pytest.raises(Conflict) as caught:
            bulk_insert(session, Airport, rows, on_conflict=on_conflict, by=by)
        assert 77 == caught.value.row
        assert [] == codes(session)


def test_what_a_row_holds_is_not_taken_for_a_key(database: Database) -> None:
    """The row that broke a rule is named, though its values look like the key of another."""
    rows: list[dict[str, Any]] = [
        {"tenant": 1, "login": f"u{at}", "full_name": "x", "changes": 1} for at in range(MANY)
    ]
    rows[3]["login"] = "u3, null"
    rows[77] |= {"full_name": "(user_name)=(u3", "changes": None}
    by = ("login", "tenant")
    with database.session() as session:
        with pytest.raises(Conflict, match=r"^row 77") as caught:
            bulk_insert(session, Account, rows, on_conflict="update", by=by)
    assert (77, "changes") == (caught.value.row, caught.value.field)


@pytest.mark.parametrize("count", [3, MANY])
def test_a_parent_that_is_missing_names_the_row(database: Database, count: int) -> None:
    """A foreign key that leads nowhere is found."""
    rows = [{"city_code": "A", "name": f"s{at}"} for at in range(count)]
    rows[1]["city_code"] = "B"
    with database.session() as session:
        session.add(City(code="A", name="pending, and stored first"))
        with pytest.raises(Conflict) as caught:
            bulk_insert(session, Street, rows)
        assert 1 == caught.value.row


@pytest.mark.parametrize("count", [3, MANY])
def test_a_value_that_does_not_fit_names_row_and_field(database: Database, count: int) -> None:
    """What the column's type refuses is said with the row and, where known, the field."""
    rows = [{"id": at, "colour": Colour.RED} for at in range(count)]
    rows[2]["colour"] = 5
    with database.session() as session:
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Everything, rows)
    assert 2 == caught.value.row


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("day", "x"),
        ("moment", 3),
        ("real", "warm"),
        ("data", object()),
        ("text", object()),
        ("text", "\ud800"),
        ("number", 2**70),
    ],
)
def test_a_value_that_sqlite_does_not_get_names_the_field(
    memory: Database, field: str, value: Any
) -> None:
    """A value that is refused on its way is said with its field, by whatever stores rows."""
    rows: list[dict[str, Any]] = [{"id": 1, field: None}, {"id": 2, "yes": True, field: value}]
    with memory.session() as session:
        for store in (
            lambda: bulk_insert(session, Everything, rows),
            lambda: session.upsert(Everything, rows, by="id"),
            lambda: session.bulk_update(Everything, rows),
        ):
            with pytest.raises(InvalidRow, match=f"row 1, field {field!r}") as caught:
                store()
            assert (1, field) == (caught.value.row, caught.value.field)


def test_an_error_is_found_in_a_later_chunk(database: Database) -> None:
    """Rows are counted over all chunks, also among rows with other fields."""
    rows = [{**row, **({"id": at + 1} if at % 3 else {})} for at, row in enumerate(airports(400))]
    rows[333]["code"] = rows[20]["code"]
    with database.session() as session:
        with pytest.raises(Conflict):
            bulk_insert(session, Airport, rows, chunk=100)
        assert [] == codes(session)


@pytest.mark.parametrize("wrong", [77, 600, 1300])
@pytest.mark.parametrize("on_conflict", ["error", "update"])
def test_a_row_is_found_among_values_of_several_kinds(
    database: Database, wrong: int, on_conflict: Any
) -> None:
    """Rows are counted right where some of them are sent in another format than the others."""
    rows: list[dict[str, Any]] = [{**row, "elevation": 1} for row in airports(1500)]
    rows[550]["elevation"] = 2.0
    rows[1250]["elevation"] = True
    rows[wrong]["code"] = "much longer than it may be" if on_conflict == "error" else None
    by = "code" if on_conflict == "update" else None
    if database.backend.name == "sqlite":
        rows[wrong]["code"] = None
    with database.session() as session:
        with pytest.raises((Conflict, InvalidRow), match=f"^row {wrong}[:,]"):
            bulk_insert(session, Airport, rows, on_conflict=on_conflict, by=by)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_rows_that_end_in_an_error(database: Database, error: type[BaseException]) -> None:
    """An error of the iterable itself leaves nothing behind either."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from airports(MANY)
        raise error("no more")

    with database.session() as session:
        session.add(Airport(code="MINE", name="there"))
        with pytest.raises(error, match="no more"):
            bulk_insert(session, Airport, rows(), chunk=50)
        session.commit()
        assert ["MINE"] == codes(session)


def test_rows_may_use_the_session(database: Database) -> None:
    """The iterable may read and add with the same session while it is stored."""

    def rows() -> Iterator[dict[str, Any]]:
        for at in range(MANY):
            session.add(City(code=f"C{at}", name="x"))
            assert session.get(City, f"C{at}") is not None
            yield {"city_code": f"C{at}", "name": f"s{at}"}

    with database.session() as session:
        assert MANY == bulk_insert(session, Street, rows(), chunk=50)


@pytest.mark.parametrize("way", ["progress", "rows", "rows that go on", "last progress"])
def test_a_commit_in_between_is_noticed(database: Database, way: str) -> None:
    """A transaction that ends while rows are stored is an error that says what is committed."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from airports(70)
        if way.startswith("rows"):
            session.commit()
            if way != "rows":
                session.scalar(sa.select(sa.func.count()).select_from(City))
        yield from airports(70, 70)

    def progress(count: int) -> None:
        if way == "progress" or (way == "last progress" and count == 140):
            session.commit()

    stored = {"last progress": 140}.get(way, 70)
    with database.session() as session:
        with pytest.raises(Misuse, match=f"the first {stored} are committed"):
            bulk_insert(session, Airport, rows(), chunk=70, progress=progress)
        assert stored == len(codes(session))
        assert 1 == bulk_insert(session, Airport, [{"code": "NEXT", "name": "goes on"}])


def test_a_rollback_in_between_is_noticed(memory: Database) -> None:
    """A transaction that is rolled back while rows are stored is an error that says so."""
    with memory.session() as session:
        with pytest.raises(Misuse, match="none is stored"):
            bulk_insert(session, Airport, airports(9), progress=lambda count: session.rollback())
        assert [] == codes(session)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_an_end_by_sql_is_noticed(database: Database, end: str) -> None:
    """A transaction that a statement of the iterable's has ended is an error that says so."""

    def rows() -> Iterator[dict[str, Any]]:
        yield from airports(70)
        session.execute(sa.text(end))
        yield from airports(5, 70)

    with database.session() as session:
        with pytest.raises(Misuse, match=r"COMMIT or ROLLBACK"):
            bulk_insert(session, Airport, rows(), chunk=70)
        session.rollback()
        assert 1 == bulk_insert(session, Airport, [{"code": "NEXT", "name": "goes on"}])
        session.commit()
        expected = {"COMMIT": 71, "ROLLBACK": 1}
        assert expected[end] == len(codes(session))


@pytest.mark.parametrize("count", [4, MANY])
def test_ignore_counts_what_was_stored(database: Database, count: int) -> None:
    """Rows whose key exists are left out, the first of equal ones is stored."""
    rows = airports(count)
    twice = {"code": "C3", "name": "another"}
    with database.session() as session:
        session.add(Airport(code="C1", name="there"))
        assert count - 1 == bulk_insert(session, Airport, [*rows, twice], on_conflict="ignore")
        names = names_of(session)
        assert ("there", "Airport 3") == (names["C1"], names["C3"])
        assert 0 == bulk_insert(session, Airport, rows, on_conflict="ignore", by="code")


@pytest.mark.parametrize("count", [0, MANY])
def test_order_counts_where_fields_differ(database: Database, count: int) -> None:
    """Of rows with one key the first is kept, or the last one wins, whatever their fields."""
    rows: list[dict[str, Any]] = [
        {"code": "A", "name": "first", "elevation": 1},
        {"code": "A", "name": "second"},
        {"code": "B", "name": "first"},
        {"code": "B", "name": "second", "elevation": 2},
        *airports(count),
        {"code": "A", "name": "last", "country": "NL"},
    ]
    with database.session() as session:
        assert 2 + count == bulk_insert(session, Airport, rows, on_conflict="ignore", by="code")
        names = names_of(session)
        assert ("first", "first") == (names["A"], names["B"])
        bulk_insert(session, Airport, rows, on_conflict="update", by="code")
        query = sa.select(Airport).order_by(Airport.code).limit(2)
        assert [("last", 1, "NL"), ("second", 2, None)] == [
            (one.name, one.elevation, one.country) for one in session.scalars(query)
        ]


@pytest.mark.parametrize("on_conflict", ["ignore", "update"])
def test_few_statements_for_fields_that_alternate(database: Database, on_conflict: Any) -> None:
    """Rows with the same fields are stored together; of those with one key the order is kept."""
    kept = on_conflict == "ignore"
    rows: list[dict[str, Any]] = [
        {"number": at, "origin": "X", **({"miles": at} if at % 2 else {})} for at in range(400)
    ]
    rows += [{"number": 7, "origin": "X"}, {"number": 8, "origin": "X", "miles": 80}]
    rows += [{"number": 7, "origin": "X", "miles": 70}, {"number": 8, "origin": "X"}]
    cities: list[dict[str, Any]] = [
        {"code": f"c{at}", "name": f"{at}", **({"size": at} if at % 2 else {})} for at in range(400)
    ]
    cities += [{"code": "c7", "name": "last"}, {"code": "c8", "name": "last", "size": 80}]
    with database.session() as session:
        sent: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            sent.append(statement)

        sa.event.listen(database.engine, "before_cursor_execute", note)
        bulk_insert(session, City, cities, on_conflict=on_conflict, by="code")
        if database.engine.dialect.name not in ("mysql", "mariadb"):
            assert len(sent) < 40
        bulk_insert(session, Leg, rows, on_conflict=on_conflict, by=["number", "origin"])
        sa.event.remove(database.engine, "before_cursor_execute", note)
        assert [7, None if kept else 80] == [
            session.get_one(City, one).size for one in ("c7", "c8")
        ]
        names = {session.get_one(City, one).name for one in ("c7", "c8")}
        assert ({"7", "8"} if kept else {"last"}) == names
        miles = [session.get_one(Leg, (one, "X")).miles for one in (7, 8, 9)]
        assert ([7, None, 9] if kept else [70, 80, 9]) == miles


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("abcdef", [0, 1, 0, 1, 0, 1]),
        ("aacdef", [0, 1, 0, 1, 0, 1]),
        ("abbdef", [0, 1, 2, 1, 0, 1]),
        ("aaaaaa", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_order_of_groups(keys: str, expected: list[int]) -> None:
    """Of rows with one key no later one is in an earlier group; the others need only two."""
    assert expected == places([1, 2, 1, 2, 1, 2], keys)


def test_rows_that_may_meet_another_way_keep_their_order(database: Database) -> None:
    """Where a row takes a unique value that an earlier one gives up, the order is not changed."""
    if database.engine.dialect.name in ("mysql", "mariadb"):
        refused: Any = pytest.raises(Unsupported, match="which unique key")
    else:
        refused = contextlib.nullcontext()
    rows: list[dict[str, Any]] = [
        {"id": 3, "name": "x", "code": "third", "country": "NL"},
        {"id": 1, "name": "x", "code": "new"},
        {"id": 2, "name": "x", "code": "old", "country": "NL"},
    ]
    with database.session() as session:
        session.add(Airport(id=1, code="old", name="x"))
        session.flush()
        with refused:
            bulk_insert(session, Airport, rows, on_conflict="update", by="id")
            assert ["new", "old", "third"] == codes(session)


@pytest.mark.parametrize("count", [4, MANY])
def test_ignore_by_one_key_minds_the_others(database: Database, count: int) -> None:
    """With by= a row that meets another key is an error, or the call is refused."""
    rows = [{"id": at + 1, **row} for at, row in enumerate(airports(count))]
    with database.session() as session:
        session.add(Airport(id=999, code="C1", name="there"))
        with pytest.raises((Conflict, Unsupported)):
            bulk_insert(session, Airport, rows, on_conflict="ignore", by="id")
        assert ["C1"] == codes(session)


@pytest.mark.parametrize("count", [4, MANY])
def test_update_changes_the_fields_that_a_row_has(database: Database, count: int) -> None:
    """Rows that exist are changed in the given fields only; all are counted."""
    with database.session() as session:
        held = Airport(code="C1", name="old", country="NL", elevation=3)
        session.add(held)
        rows = airports(count)
        rows[0]["country"] = "DE"
        given = [*rows, {"code": "C0", "name": "last wins"}]
        assert count + 1 == bulk_insert(session, Airport, given, on_conflict="update", by="code")
        assert ("Airport 1", "NL", 3) == (held.name, held.country, held.elevation)
        first = session.scalars(sa.select(Airport).where(Airport.code == "C0")).one()
        assert ("last wins", "DE") == (first.name, first.country)
        assert count == len(codes(session))


def test_the_last_of_equal_keys_wins_within_a_chunk_and_beyond(database: Database) -> None:
    """A key that comes several times is no error."""
    rows = [{"code": f"C{at % 5}", "name": f"n{at}"} for at in range(MANY)]
    with database.session() as session:
        assert MANY == bulk_insert(
            session, Airport, rows, on_conflict="update", by=["code"], chunk=50
        )
        expected = {f"C{at % 5}": f"n{at}" for at in range(MANY - 5, MANY)}
        assert expected == names_of(session)


@pytest.mark.parametrize("often", [False, True])
@pytest.mark.parametrize("count", [0, MANY])
def test_rows_with_one_key_are_stored_in_their_order(
    database: Database, count: int, often: bool
) -> None:
    """What rows with one key do does not depend on how many there are: each is stored in turn."""
    others = [{"tenant": 2, "login": f"u{at}", "full_name": "x"} for at in range(count)]
    more = [{"tenant": 3, "login": f"u{at % 3}", "full_name": f"{at}"} for at in range(99)]
    rows: list[dict[str, Any]] = [
        {"tenant": 1, "login": "new", "full_name": "first"},
        {"tenant": 1, "login": "once", "full_name": "x"},
        *others,
        {"tenant": 1, "login": "new", "full_name": "last"},
        *(more if often else ()),
    ]
    with database.session() as session:
        by = ("tenant", "login")
        assert len(rows) == bulk_insert(session, Account, rows, on_conflict="update", by=by)
        query = sa.select(Account.full_name, Account.changes).order_by(Account.login)
        # the second one has changed what the first one stored
        assert [("last", 7), ("x", 1)] == session.execute(query.where(Account.tenant == 1)).all()
        if often:
            found = session.execute(query.where(Account.tenant == 3)).all()
            assert [("96", 7), ("97", 7), ("98", 7)] == found


@pytest.mark.parametrize("count", [0, MANY])
def test_rows_with_one_key_mind_the_other_keys(database: Database, count: int) -> None:
    """A row that gives a unique value free goes before the one that takes it; keys stay."""
    if database.engine.dialect.name in ("mysql", "mariadb"):
        return  # where rows that could meet another key are refused
    others = [{"id": 100 + at, "code": f"o{at}", "name": "x"} for at in range(count)]
    rows = [
        {"id": 1, "code": "x", "name": "a"},
        {"id": 2, "code": "x", "name": "b"},
        {"id": 2, "code": "y", "name": "c"},
        *others,
        {"id": 99_999, "code": "y", "name": "d"},
    ]
    badges = [
        {"code": "a", "alt": 5},
        {"code": "b", "alt": 1},
        {"code": "a", "alt": 6},
        {"code": "c", "alt": 5},
        *({"code": f"o{at}", "alt": 100 + at} for at in range(count)),
    ]
    Badge.metadata.create_all(database.engine)
    with database.session() as session:
        bulk_insert(session, Airport, rows, on_conflict="update", by="code")
        two = sa.select(Airport.id, Airport.name).where(Airport.code.in_(["x", "y"]))
        assert [(1, "b"), (2, "d")] == session.execute(two.order_by("id")).all()
        session.add(Badge(code="a", alt=1))
        assert 4 + count == bulk_insert(session, Badge, badges, on_conflict="update", by="code")
        three = sa.select(Badge.code, Badge.alt).where(sa.func.length(Badge.code) == 1)
        assert [("a", 6), ("b", 1), ("c", 5)] == session.execute(three.order_by("code")).all()
        free = [{"code": None, "alt": at} for at in range(500, 500 + count)]
        assert count == bulk_insert(session, Badge, free, on_conflict="update", by="code")
    Badge.metadata.drop_all(database.engine)


@pytest.mark.parametrize("count", [4, MANY])
def test_update_by_two_fields_and_on_update_values(database: Database, count: int) -> None:
    """A composite key with columns of other names; onupdate sets its value."""
    rows = [{"tenant": 1, "login": f"u{at}", "full_name": "new"} for at in range(count)]
    with database.session() as session:
        session.add(Account(tenant=1, login="u2", full_name="old"))
        by = ["login", "tenant"]
        assert count == bulk_insert(session, Account, rows, on_conflict="update", by=by)
        query = sa.select(Account.full_name, Account.changes).order_by(Account.login)
        changes = {row.changes for row in session.execute(query)}
        assert {1, 7} == changes
        assert {"new"} == {row.full_name for row in session.execute(query)}


def test_update_of_a_key_alone_counts(database: Database) -> None:
    """Rows with nothing but the key can be given too."""
    rows = [{"number": at, "origin": "A"} for at in range(MANY)]
    by = ("number", "origin")
    with database.session() as session:
        for _ in range(2):
            assert MANY == bulk_insert(session, Leg, rows, on_conflict="update", by=by)


def test_progress_is_told_after_each_chunk(memory: Database) -> None:
    """progress gets the number of rows so far."""
    told: list[int] = []
    with memory.session() as session:
        bulk_insert(session, Airport, airports(25), chunk=10, progress=told.append)
    assert [10, 20, 25] == told


@pytest.mark.parametrize(
    "options",
    [
        {"on_conflict": "update"},
        {"on_conflict": "replace"},
        {"by": "code"},
        {"chunk": 0},
        {"chunk": True},
    ],
)
def test_arguments_that_make_no_sense(memory: Database, options: dict[str, Any]) -> None:
    """They are refused before a row is read."""
    with memory.session() as session:
        with pytest.raises(InvalidArgument):
            bulk_insert(session, Airport, iter([1]), **options)


def test_by_has_to_be_a_unique_key(memory: Database) -> None:
    """Fields that no key covers are refused with the constraint to add; unknown ones too."""
    with memory.session() as session:
        with pytest.raises(Unsupported, match="UniqueConstraint\\('name'\\)"):
            bulk_insert(session, Airport, [], on_conflict="update", by="name")
        with pytest.raises(UnknownField):
            bulk_insert(session, Airport, [], on_conflict="update", by="nome")


def test_a_row_without_the_key_is_refused(database: Database) -> None:
    """With "update" every row has the fields of the key."""
    rows = airports(MANY)
    del rows[9]["code"]
    with database.session() as session:
        with pytest.raises(InvalidRow) as caught:
            bulk_insert(session, Airport, rows, on_conflict="update", by="code")
    assert (9, "code") == (caught.value.row, caught.value.field)


@pytest.mark.parametrize("row", [{"nome": 1}, {"code": "x", "name": "x", "nome": 1}])
def test_an_unknown_field_names_the_row(database: Database, row: dict[str, Any]) -> None:
    """A field that the model has not is an error that lists its fields."""
    with database.session() as session:
        with pytest.raises(UnknownField, match=r"row 60: .*elevation") as caught:
            bulk_insert(session, Airport, [*airports(60), row, *airports(60, 60)])
        assert 60 == caught.value.row
        assert [] == codes(session)


def test_what_is_no_row(memory: Database) -> None:
    """Tuples, and one mapping instead of several, are refused."""
    with memory.session() as session:
        with pytest.raises(InvalidRow, match="row 1 is tuple"):
            bulk_insert(session, Airport, [airports(1)[0], ("A", "b")])
        with pytest.raises(Misuse, match="list"):
            bulk_insert(session, Airport, airports(1)[0])
        for nothing in (None, 5, Airport):
            with pytest.raises(Misuse, match="iterable"):
                bulk_insert(session, Airport, nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [sa.func.now(), City.code + "x", City.name, sa.null()])
@pytest.mark.parametrize("count", [2, MANY])
def test_an_expression_is_no_value(database: Database, count: int, value: Any) -> None:
    """An SQL expression in one of many rows is refused with its row, and never stored as text."""
    rows: list[dict[str, Any]] = [{"code": f"c{at}", "name": "x"} for at in range(count)]
    strange = [*rows, {"code": "c1", "name": value}]
    ways: dict[str, Callable[[Session], object]] = {
        "insert": lambda session: bulk_insert(session, City, strange),
        "ignore": lambda session: bulk_insert(session, City, strange, on_conflict="ignore"),
        "upsert": lambda session: upsert(session, City, strange, by="code", update="name"),
        "update": lambda session: bulk_update(session, City, strange),
    }
    with database.session() as session:
        for way, call in ways.items():
            with pytest.raises(InvalidRow, match="SQL expression") as caught:
                call(session)
            assert (way, count, "name") == (way, caught.value.row, caught.value.field)
        with pytest.raises(InvalidRow, match="SQL expression"):
            upsert(session, City, {"code": "new", "name": value}, by="code")
        assert [] == session.scalars(sa.select(City)).all()


def test_a_read_only_session_refuses_before_it_reads(database: Database) -> None:
    """Nothing is taken from the iterable, and nothing sent."""
    rows = iter(airports(2))
    with database.session(read_only=True) as session:
        with pytest.raises(ReadOnlyError):
            bulk_insert(session, Airport, rows)
    assert 2 == len(list(rows))


@pytest.mark.parametrize("count", [3, MANY])
def test_every_type_comes_back(database: Database, count: int) -> None:
    """Values of all usual types, and NULL, are the same when they are read."""
    row = {
        "text": "tab\t nl\n cr\r back\\slash \\N \\. 'quote' \"q\" é 😀 \x01",
        "number": -(2**63),
        "real": 0.1,
        "amount": decimal.Decimal("-123456.7891"),
        "yes": False,
        "day": datetime.date(1, 1, 1),
        "moment": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "colour": Colour.GREEN,
        "data": {"a": [1, None, "\\\t\n"], "b": {"c": 1.5}},
        "blob": bytes(range(256)),
    }
    nothing = dict.fromkeys(row)
    rows = [{"id": at, **(nothing if at % 2 else row)} for at in range(count)]
    with database.session() as session:
        assert count == bulk_insert(session, Everything, rows)
        for one in session.scalars(sa.select(Everything)):
            expected = nothing if one.id % 2 else row
            assert expected == {name: getattr(one, name) for name in row}
