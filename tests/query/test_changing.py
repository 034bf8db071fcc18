"""Changing instances, and rows by a key."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_method, hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    column_property,
    mapped_column,
    relationship,
    with_loader_criteria,
)

from qapla_db import Database, Session
from qapla_db.errors import (
    Conflict,
    InvalidArgument,
    InvalidRow,
    Misuse,
    ReadOnlyError,
    UnknownField,
    Unsupported,
)
from qapla_db.query.changing import bulk_update, delete, update, upsert
from tests.query.models import (
    Account,
    Airport,
    Animal,
    City,
    Dog,
    Everything,
    Leg,
    Note,
    Street,
    Truck,
    User,
)


class Base(DeclarativeBase):
    """Base of the models here."""


class Scale(Base):
    """An onupdate that looks at its row, and a name that drivers have to be careful with."""

    __tablename__ = "scale"
    a: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    b: Mapped[int]
    c: Mapped[int | None] = mapped_column(
        onupdate=lambda context: context.get_current_parameters()["b"] * 10
    )
    share: Mapped[int | None] = mapped_column("a%b")

    @hybrid_property
    def double(self) -> int:
        """What nobody can set."""
        return self.b * 2

    @hybrid_method
    def times(self, factor: int) -> int:
        """What nobody can set either."""
        return self.b * factor


class Watch(Base):
    """A column that is named as a parameter for the key could be."""

    __tablename__ = "watch"
    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(sa.String(9))
    by_user: Mapped[str] = mapped_column(sa.String(9))
    by_by_user: Mapped[str | None] = mapped_column(sa.String(9))


class Part(Base):
    """Fields that are stored nowhere, or otherwise than they are given."""

    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2), unique=True)
    made: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime, unique=True)
    gone: Mapped[bool] = mapped_column(default=False)
    doubled: Mapped[int | None] = mapped_column(sa.Computed("id * 2"))
    whole_id: Mapped[int | None] = mapped_column(sa.ForeignKey("part.id"))
    labelled: Mapped[str] = column_property(id + 1)
    parts: Mapped[list[Part]] = relationship(viewonly=True)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A session of an empty database."""
    with database.session() as session:
        yield session


@pytest.fixture
def quick(memory: Database) -> Iterator[Session]:
    """A session of an empty database in memory."""
    with memory.session() as session:
        yield session


def cities(session: Session) -> list[Any]:
    """What is stored, by key."""
    statement = sa.select(City.code, City.name, City.size).order_by(City.code)
    return [tuple(row) for row in session.execute(statement)]


def test_update_and_delete(session: Session) -> None:
    """An instance gets its values and is returned; one that is deleted is gone."""
    city = City(code="WAW", name="Warszawa")
    session.add(city)
    session.flush()
    assert city is update(session, city, {"name": "Warsaw", "size": 3})
    assert [("WAW", "Warsaw", 3)] == cities(session)
    delete(session, city)
    assert [] == cities(session)
    pending = City(code="KRK", name="x")
    session.add(pending)
    delete(session, pending)
    assert [] == cities(session)


def test_update_of_a_misspelt_field(quick: Session) -> None:
    """A field that does not exist is an error, and the others are not set either."""
    city = City(code="WAW", name="Warszawa")
    quick.add(city)
    with pytest.raises(UnknownField, match="sice"):
        update(quick, city, {"name": "Warsaw", "sice": 3})
    assert "Warszawa" == city.name


def test_update_of_what_cannot_be_set(quick: Session) -> None:
    """A hybrid without a setter is refused, and the other fields are not set."""
    Base.metadata.create_all(quick.connection())
    scale = Scale(a=1, b=1)
    quick.add(scale)
    with pytest.raises(InvalidArgument, match=r"Scale\.double cannot be set"):
        update(quick, scale, {"b": 99, "double": 3})
    with pytest.raises(InvalidArgument, match=r"Scale\.times cannot be set"):
        update(quick, scale, {"b": 99, "times": 3})
    assert 1 == scale.b


@pytest.mark.parametrize("values", [{"labelled": 3}, {"doubled": 4}, {"parts": []}])
def test_fields_that_are_stored_nowhere(session: Session, values: dict[str, Any]) -> None:
    """An SQL expression, a computed column and a relationship for reading are refused."""
    Base.metadata.create_all(session.connection())
    part = Part(id=1, size=Decimal(1))
    session.add(part)
    with pytest.raises(InvalidArgument, match=r"Part\.\w+ cannot be set, since it is"):
        update(session, part, {"size": Decimal(2), **values})
    row = {"id": 1, "size": Decimal(2), "doubled": 4}
    changes: list[Callable[[], object]] = [
        lambda: bulk_update(session, Part, [{"id": 1, "size": Decimal(3)}, row]),
        lambda: upsert(session, Part, row, by="id"),
        lambda: upsert(session, Part, [row], by="id", update="size"),
    ]
    for change in changes:
        with pytest.raises(InvalidRow, match="'doubled' of Part is given by the database"):
            change()
    assert 1 == part.size
    assert 1 == bulk_update(session, Part, [{"doubled": 2, "size": Decimal(5)}], by="doubled")


@pytest.mark.parametrize(
    "key",
    [
        {"size": Decimal("1.005")},
        {"made": datetime.datetime(2020, 1, 1, 1, 1, 1, 123456)},
    ],
    ids=["number", "moment"],
)
def test_upsert_of_a_key_that_is_rounded(session: Session, key: dict[str, Any]) -> None:
    """The row is found, and changed, by the key that the database makes of the one given."""
    Base.metadata.create_all(session.connection())
    made = upsert(session, Part, key, by=list(key))
    assert made is upsert(session, Part, {**key, "gone": True}, by=list(key))
    assert (True, 1) == (made.gone, session.count(Part))


def test_upsert_of_a_row_that_is_hidden(session: Session) -> None:
    """Where the session's own criteria hide the row, the error says so and nothing is stored."""
    Base.metadata.create_all(session.connection())
    session.add(Part(id=1, size=Decimal(1), gone=True))
    session.flush()

    @sa.event.listens_for(session, "do_orm_execute")
    def hide(execution: ORMExecuteState) -> None:
        if execution.is_select:
            shown = with_loader_criteria(Part, Part.gone == sa.false())
            execution.statement = execution.statement.options(shown)

    with pytest.raises(Unsupported, match=r"size=Decimal.*criteria of this session hide"):
        upsert(session, Part, {"size": Decimal(1), "whole_id": 1}, by="size")
    table = Part.__table__
    assert [None] == list(session.connection().scalars(sa.select(table.c.whole_id)))
    assert 1 == upsert(session, Part, [{"size": Decimal(1), "whole_id": 1}], by="size")


def test_instance_of_no_session(quick: Session) -> None:
    """An instance that this session would not store is refused."""
    with pytest.raises(Misuse, match="City is not in this session"):
        update(quick, City(code="A", name="a"), {"name": "b"})
    with pytest.raises(Misuse, match="City is not in this session"):
        delete(quick, City(code="A", name="a"))
    with pytest.raises(Misuse, match="mapped class"):
        delete(quick, "WAW")


def test_upsert_of_one(session: Session) -> None:
    """One mapping gives the instance, new or changed, as it is stored."""
    made = upsert(session, City, {"code": "WAW", "name": "Warszawa", "size": 1}, by="code")
    assert ("Warszawa", 1) == (made.name, made.size)
    again = upsert(session, City, {"code": "WAW", "name": "Warsaw"}, by="code")
    assert again is made
    assert ("Warsaw", 1) == (made.name, made.size)
    assert [("WAW", "Warsaw", 1)] == cities(session)


def test_upsert_of_several(session: Session) -> None:
    """Several rows, which may differ in their fields, are counted; nothing stale is read."""
    warsaw = City(code="WAW", name="Warszawa", size=1)
    session.add(warsaw)
    session.flush()
    warsaw.size = 2
    rows: list[dict[str, Any]] = [
        {"code": "WAW", "name": "Warsaw"},
        {"code": "KRK", "name": "Kraków", "size": 8},
        {"code": "KRK", "name": "Krakow"},
    ]
    assert 3 == upsert(session, City, (row for row in rows), by=["code"])
    assert "Warsaw" == warsaw.name
    assert [("KRK", "Krakow", 8), ("WAW", "Warsaw", 2)] == cities(session)
    assert 0 == upsert(session, City, [], by="code")


def test_upsert_of_some_fields(session: Session) -> None:
    """Only the fields that are named change in a row that exists; with none it stays."""
    upsert(session, City, {"code": "WAW", "name": "Warszawa", "size": 1}, by="code")
    row = {"code": "WAW", "name": "Warsaw", "size": 2}
    assert 1 == upsert(session, City, [row], by="code", update="size")
    assert [("WAW", "Warszawa", 2)] == cities(session)
    assert "Warszawa" == upsert(session, City, row, by="code", update=()).name
    with pytest.raises(InvalidArgument, match="'size'"):
        upsert(session, City, {"code": "WAW", "name": "x"}, by="code", update=["size"])
    with pytest.raises(UnknownField):
        upsert(session, City, row, by="code", update=["sice"])


def test_upsert_of_renamed_columns(session: Session) -> None:
    """Attributes that are named otherwise than their columns, defaults, and onupdate."""
    row = {"tenant": 1, "login": "me", "full_name": "I"}
    made = upsert(session, Account, row, by=("tenant", "login"))
    assert (1, "I") == (made.changes, made.full_name)
    again = upsert(session, Account, {**row, "full_name": "Me"}, by=("login", "tenant"))
    assert (made, 7, "Me") == (again, again.changes, again.full_name)
    other = upsert(session, Account, {**row, "tenant": 2}, by=("login", "tenant"))
    assert other is not made
    assert 2 == session.scalar(sa.select(sa.func.count()).select_from(Account))


def test_upsert_of_a_kind(session: Session) -> None:
    """A row of a subclass in the same table becomes one of that class."""
    made = upsert(session, Dog, {"name": "Rex", "barks": True}, by="name")
    assert "dog" == made.kind
    assert [True] == list(session.scalars(sa.select(Dog.barks)))


@pytest.mark.parametrize("count", [1, 120])
@pytest.mark.parametrize("way", ["one", "some", "many", "bulk_insert"])
def test_a_row_of_another_class_is_not_changed(session: Session, way: str, count: int) -> None:
    """Where the row that has the key is of another class, it is a conflict and nothing changes."""
    cat = Animal(name="Cat")
    session.add_all([cat, Dog(name="d0", barks=False)])
    session.flush()
    rows: list[dict[str, Any]] = [{"name": f"d{at}", "barks": True} for at in range(count)]
    assert count == upsert(session, Dog, [*rows], by="name")
    bad = [*rows, {"name": "Cat", "barks": True}]
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: upsert(session, Dog, bad[-1], by="name"),
        "some": lambda: upsert(session, Dog, bad, by="name", update=()),
        "many": lambda: upsert(session, Dog, bad, by="name"),
        "bulk_insert": lambda: session.bulk_insert(Dog, bad, on_conflict="update", by="name"),
    }
    rows[0]["barks"] = False
    with pytest.raises(Conflict, match="another class") as caught:
        ways[way]()
    assert (0 if way == "one" else count) == caught.value.row
    table = Animal.metadata.tables["animal"]
    found = session.execute(sa.select(table.c.kind, table.c.barks).where(table.c.name == "Cat"))
    assert [("animal", None)] == [tuple(row) for row in found]
    assert {True} == set(session.scalars(sa.select(Dog.barks)))
    assert "Cat" == upsert(session, Animal, {"name": "Cat"}, by="name").name
    assert "dog" == upsert(session, Animal, {"name": "d0"}, by="name").kind


@pytest.mark.parametrize("by", ["title", "name", ("code", "name")])
def test_upsert_without_a_unique_key(session: Session, by: Any) -> None:
    """Where the metadata proves no unique key, the constraint to create is named."""
    model: type[Any] = Note if by == "title" else Airport
    with pytest.raises(Unsupported, match="UniqueConstraint"):
        upsert(session, model, {"code": "A", "name": "a", "title": "b"}, by=by)


def test_a_key_of_no_fields(quick: Session) -> None:
    """No field at all would mean every row, and is refused."""
    quick.add_all([City(code="A", name="a"), City(code="B", name="b")])
    changes: list[Callable[[], object]] = [
        lambda: bulk_update(quick, City, [{"name": "x"}], by=[]),
        lambda: bulk_update(quick, City, [{"name": "x"}], by=()),
        lambda: upsert(quick, City, {"code": "A", "name": "x"}, by=[]),
        lambda: upsert(quick, City, [{"code": "A", "name": "x"}], by=()),
        lambda: quick.bulk_insert(City, [{"code": "A", "name": "x"}], on_conflict="update", by=[]),
        lambda: quick.bulk_insert(City, [{"code": "A", "name": "x"}], on_conflict="ignore", by=()),
    ]
    for change in changes:
        with pytest.raises(InvalidArgument, match="names no field"):
            change()
    assert [("A", "a", None), ("B", "b", None)] == cities(quick)


def test_upsert_that_could_hit_another_key(database: Database, session: Session) -> None:
    """Where the database would change the row of any key that is hit, a second one is refused."""
    upsert(session, Airport, {"code": "EPWA", "name": "Chopin"}, by="code")  # gives no id
    row = {"id": 7, "code": "EPMO", "name": "Modlin"}
    if database.engine.dialect.name in ("mysql", "mariadb"):
        with pytest.raises(Unsupported, match="which unique key"):
            upsert(session, Airport, row, by="code")
    else:
        assert 7 == upsert(session, Airport, row, by="code").id


@pytest.mark.parametrize("row", [{"name": "x"}, {"name": "x", "code": None}])
def test_upsert_without_a_value_for_the_key(session: Session, row: dict[str, Any]) -> None:
    """NULL is equal to nothing and would be stored again and again; the row is named."""
    with pytest.raises(InvalidRow, match=r"row 1 has no value for Airport\.code") as caught:
        upsert(session, Airport, [{"code": "A", "name": "a"}, row], by="code")
    assert (1, "code") == (caught.value.row, caught.value.field)
    assert 0 == session.scalar(sa.select(sa.func.count()).select_from(Airport))


@pytest.mark.parametrize("update", [None, "name"])
def test_error_leaves_nothing_and_the_session_goes_on(session: Session, update: Any) -> None:
    """After an error, which names the row and its field, none of the rows is stored."""
    session.add(City(code="WAW", name="Warszawa"))
    rows: list[dict[str, Any]] = [
        {"code": "KRK", "name": "k"},
        {"code": "POZ", "name": "p", "size": 1},
        {"code": "LUZ", "name": "l", "size": 1},
        {"code": "GDN", "name": None, "size": 1},
        {"code": "WRO", "name": "w", "size": 1},
    ]
    with pytest.raises(Conflict, match=r"row 3.*City could not be stored") as caught:
        upsert(session, City, rows, by="code", update=update)
    assert (City, 3, "name") == (caught.value.model, caught.value.row, caught.value.field)
    with pytest.raises(Conflict) as caught:
        bulk_update(session, City, [{"code": "WAW", "size": 1}, {"code": "WAW", "name": None}])
    assert (1, "name") == (caught.value.row, caught.value.field)
    with pytest.raises(Conflict) as caught:
        upsert(session, City, rows[3], by="code")
    assert "name" == caught.value.field
    assert [("WAW", "Warszawa", None)] == cities(session)


def test_value_that_cannot_be_stored(session: Session) -> None:
    """A value that the column's type refuses is an error that names the row."""
    upsert(session, Everything, {"id": 1, "text": "x"}, by="id")
    rows: list[dict[str, Any]] = [{"id": 1, "yes": True}, {"id": 1, "yes": "maybe"}]
    for change in (
        lambda: upsert(session, Everything, rows, by="id"),
        lambda: upsert(session, Everything, rows, by="id", update="yes"),
        lambda: bulk_update(session, Everything, rows),
    ):
        with pytest.raises(InvalidRow, match="maybe") as caught:
            change()
        assert 1 == caught.value.row
    assert [None] == list(session.scalars(sa.select(Everything.yes)))


def test_error_of_the_caller_s_own(quick: Session) -> None:
    """What the caller has added wrongly is no fault of a row that is given."""
    with quick.no_autoflush:
        quick.add_all([Airport(code="EPWA", name="a"), Airport(code="EPWA", name="b")])
        with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
            bulk_update(quick, City, [{"code": "WAW", "size": 1}])


def test_nothing_is_uncommitted_after_an_error(quick: Session) -> None:
    """A session that has stored nothing after all does not count as changed."""
    for chosen in (None, "name"):
        with pytest.raises(Conflict):
            upsert(quick, City, [{"code": "WAW", "name": None}], by="code", update=chosen)
        assert not quick.has_uncommitted
    upsert(quick, City, [{"code": "WAW", "name": "x"}], by="code", update="name")
    assert quick.has_uncommitted


def test_changes_of_instances_are_not_lost(database: Database) -> None:
    """What the caller has changed and not flushed yet is stored, though instances are expired."""
    row: dict[str, Any] = {"code": "KRK", "name": "Kraków"}
    changes: list[Callable[[Session], object]] = [
        lambda session: upsert(session, City, row, by="code"),
        lambda session: upsert(session, City, [row], by="code"),
        lambda session: upsert(session, City, [row], by="code", update="name"),
        lambda session: bulk_update(session, City, [row]),
    ]
    with database.transaction() as session:
        session.add(City(code="WAW", name="Warszawa"))
    for size, change in enumerate(changes):
        with database.session() as session:
            warsaw = session.get_one(City, "WAW")
            with session.no_autoflush:
                warsaw.size = size
                change(session)
            assert size == warsaw.size
            session.commit()
        with database.session() as session:
            assert size == session.get_one(City, "WAW").size


def test_update_sets_all_or_nothing(session: Session) -> None:
    """After an error of a validator no field is changed, and the user sees that very error."""
    session.add(User(name="x", password="old"))
    session.commit()
    user = session.get_one(User, "x")
    user.note = "plain"  # type: ignore[attr-defined]
    for loaded in (True, False):
        for wrong in ({"password": "new", "name": ""}, {"hashed": "new", "name": ""}):
            if not loaded:
                session.expire(user)
            with pytest.raises(ValueError, match="a user has a name") as caught:
                update(session, user, wrong)
            assert ValueError is type(caught.value)
            assert user not in session.dirty
            assert ("x", "old", "plain") == (user.name, user.password, user.note)  # type: ignore[attr-defined]
    user.password = "mine"
    with pytest.raises(ValueError):
        update(session, user, {"password": "new", "name": ""})
    session.commit()
    assert "mine" == user.password


def test_update_restores_what_was_pending(session: Session) -> None:
    """An instance that is not stored yet gets its fields back too, and is stored with them."""
    user = User(name="x")
    session.add(user)
    with pytest.raises(ValueError):
        update(session, user, {"hashed": "new", "name": ""})
    session.commit()
    assert (user.name, user.hashed) == ("x", None)


def test_update_restores_both_sides_of_a_relationship(memory: Database) -> None:
    """A relationship that was set before the error is as it was, seen from either side."""
    with memory.session() as session:
        session.add_all([City(code="A", name="a"), City(code="B", name="b")])
        session.add(Street(id=1, name="s", city_code="A"))
        session.commit()
        street, first, second = (
            session.get_one(Street, 1),
            session.get_one(City, "A"),
            session.get_one(City, "B"),
        )
        for loads in (True, False):
            if loads:
                assert ([street], []) == (first.streets, second.streets)
                assert first is street.city
            else:
                session.expire_all()
            for city in (second, City(code="C", name="c")):
                with pytest.raises(ValueError, match="wrong"):
                    update(session, street, Failing({"city": city, "name": "t"}))
            assert [] == list(session.new)
            session.commit()
            assert ("s", "A", first) == (street.name, street.city_code, street.city)
            assert ([street], []) == (first.streets, second.streets)
        with pytest.raises(ValueError, match="wrong"):
            update(session, first, Failing({"streets": [Street(id=2, name="t")], "name": "t"}))
        session.commit()
        assert ("a", [street]) == (first.name, first.streets)
        assert 1 == session.count(Street)


class Failing(dict[str, Any]):
    """Values, the last of which cannot be had."""

    def items(self) -> Any:
        yield from super().items()
        raise ValueError("wrong")


def test_upsert_keeps_the_primary_key(database: Database, session: Session) -> None:
    """A row that exists keeps its primary key, which others refer to, whatever the new one has.

    Where the statement would change the row of any key that is met, two keys are refused.
    """
    session.add(Airport(id=1, code="EPWA", name="Okęcie"))
    session.flush()
    row = {"id": 7, "code": "EPWA", "name": "Chopin"}
    if database.engine.dialect.name in ("mysql", "mariadb"):
        for rows in (row, [row]):
            with pytest.raises(Unsupported, match=r"which unique key of Airport .* look for exist"):
                upsert(session, Airport, rows, by="code")
        assert [(1, "Okęcie")] == session.execute(sa.select(Airport.id, Airport.name)).all()
        return
    kept = upsert(session, Airport, row, by="code")
    assert (1, "Chopin") == (kept.id, kept.name)
    assert 1 == upsert(session, Airport, [{**row, "name": "WAW"}], by="code")
    assert (1, "WAW") == (kept.id, kept.name)


def test_upsert_of_the_primary_key_itself(quick: Session) -> None:
    """A primary key is not changed, not even where it is asked for by name."""
    quick.add(Airport(id=1, code="EPWA", name="Okęcie"))
    row = {"id": 7, "code": "EPWA", "name": "Chopin"}
    for rows in (row, [row]):
        with pytest.raises(InvalidArgument, match="primary key"):
            upsert(quick, Airport, rows, by="code", update=["name", "id"])
    assert [(1, "Okęcie")] == [
        tuple(one) for one in quick.execute(sa.select(Airport.id, Airport.name))
    ]


def test_models_that_one_statement_cannot_write(quick: Session) -> None:
    """A model in several tables, and fields that are no columns, are refused by name."""
    with pytest.raises(Unsupported, match="Truck"):
        upsert(quick, Truck, {"plate": "W", "tons": 1}, by="plate")
    with pytest.raises(UnknownField, match="streets"):
        upsert(quick, City, {"code": "A", "streets": []}, by="code")
    with pytest.raises(UnknownField, match="nam"):
        bulk_update(quick, City, [{"code": "A", "nam": "x"}])


def test_bulk_update(session: Session) -> None:
    """Each row changes the one with its key; the matched are counted, changed or not."""
    session.add_all([City(code=code, name=code, size=1) for code in "ABC"])
    session.flush()
    kept = session.get_one(City, "A")
    rows = [{"code": "A", "size": 5}, {"code": "B", "size": 1}, {"code": "X", "size": 1}]
    assert 2 == bulk_update(session, City, rows)
    assert 5 == kept.size
    assert 1 == bulk_update(session, City, [{"name": "C", "size": None}], by="name")
    assert [("A", "A", 5), ("B", "B", 1), ("C", "C", None)] == cities(session)
    assert 0 == bulk_update(session, City, [])
    with pytest.raises(InvalidRow, match=r"row 0 has no value for City\.code"):
        bulk_update(session, City, [{"size": 1}])
    with pytest.raises(InvalidRow, match="nothing to change"):
        bulk_update(session, City, [{"code": "A"}])


def test_bulk_update_of_renamed_columns_and_composite_keys(session: Session) -> None:
    """Attribute names, onupdate and keys of several columns are as in a flush."""
    session.add_all(
        [Account(tenant=1, login="me"), Leg(number=1, origin="A"), Leg(number=1, origin="B")]
    )
    session.flush()
    assert 1 == bulk_update(session, Leg, [{"number": 1, "origin": "B", "miles": 9}])
    assert [None, 9] == list(session.scalars(sa.select(Leg.miles).order_by(Leg.origin)))
    changes = [{"tenant": 1, "login": "me", "full_name": "I"}]
    assert 1 == bulk_update(session, Account, changes, by=("tenant", "login"))
    account = session.scalars(sa.select(Account)).one()
    assert ("I", 7) == (account.full_name, account.changes)


def test_bulk_update_of_a_kind(session: Session) -> None:
    """Rows of another class in the same table are not touched."""
    session.add_all([Animal(name="a"), Dog(name="d")])
    session.flush()
    rows = [{"name": "a", "barks": True}, {"name": "d", "barks": True}]
    assert 1 == bulk_update(session, Dog, rows, by="name")


def test_an_onupdate_that_looks_at_its_row(session: Session) -> None:
    """It is refused by name where no row is known, and does not count where a value is given."""
    Base.metadata.create_all(session.connection())
    row = {"a": 1, "b": 2}
    for change in (
        lambda: upsert(session, Scale, row, by="a"),
        lambda: upsert(session, Scale, [row], by="a"),
        lambda: upsert(session, Scale, [row], by="a", update="b"),
    ):
        with pytest.raises(Unsupported, match=r"'scale\.c'"):
            change()
    assert 5 == upsert(session, Scale, {**row, "c": 5}, by="a").c
    assert 1 == bulk_update(session, Scale, [{"a": 1, "b": 3}])
    assert 30 == session.scalar(sa.select(Scale.c))


@pytest.mark.parametrize("many", [False, True])
def test_a_percent_sign_in_a_name(session: Session, many: bool) -> None:
    """The column is changed, or refused by name."""
    Base.metadata.create_all(session.connection())
    session.add(Scale(a=1, b=1, share=1))
    row = {"a": 1, "b": 2, "c": 3, "share": 4}
    if session.get_bind().dialect.name in ("mysql", "mariadb"):
        with pytest.raises(Unsupported, match="'a%b'"):
            upsert(session, Scale, [row] if many else row, by="a")
    else:
        upsert(session, Scale, [row] if many else row, by="a")
        assert 4 == session.scalar(sa.select(Scale.share))


def test_bulk_update_minds_no_names(session: Session) -> None:
    """However the columns are named, the rows with the key are changed, and no others."""
    Base.metadata.create_all(session.connection())
    session.add_all([Watch(user="a", by_user="x"), Watch(user="b", by_user="y")])
    session.flush()
    assert 1 == bulk_update(session, Watch, [{"user": "a", "by_user": "b"}], by="user")
    row = {"user": "a", "by_user": "b", "by_by_user": "c"}
    assert 1 == bulk_update(session, Watch, [row], by=("user", "by_user"))
    query = sa.select(Watch.user, Watch.by_user, Watch.by_by_user).order_by(Watch.user)
    assert [("a", "b", "c"), ("b", "y", None)] == [tuple(one) for one in session.execute(query)]


def test_read_only(memory: Database) -> None:
    """A read-only session refuses before the server would."""
    with memory.session(read_only=True) as session:
        with pytest.raises(ReadOnlyError):
            upsert(session, City, {"code": "A", "name": "a"}, by="code")
        with pytest.raises(ReadOnlyError):
            bulk_update(session, City, [{"code": "A", "name": "a"}])
