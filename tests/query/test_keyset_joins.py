"""Pages by position of what is joined, inherited or computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    mapped_column,
    query_expression,
    relationship,
    with_expression,
    with_polymorphic,
)

from qapla_db.errors import InvalidArgument
from qapla_db.query.keyset import paginate_keyset
from tests.query.test_keyset import flat, walk, walk_back
from tests.support import make_application


class Base(DeclarativeBase):
    """Base of the models here."""


class City(Base):
    """What the others belong to."""

    __tablename__ = "city"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(20))
    rank: Mapped[int | None] = query_expression()
    streets: Mapped[list[Street]] = relationship(back_populates="city")


class Street(Base):
    """Some cities have none, and some streets no city."""

    __tablename__ = "street"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(20))
    city_id: Mapped[int | None] = mapped_column(sa.ForeignKey("city.id"))
    city: Mapped[City | None] = relationship(back_populates="streets")


class Ranked(Base):
    """A window function among the columns of a model."""

    __tablename__ = "ranked"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


Ranked.place = column_property(sa.func.row_number().over(order_by=Ranked.__table__.c.id))


class Vehicle(Base):
    """A model whose subclasses are always loaded with it."""

    __tablename__ = "vehicle"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(sa.String(10))

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Truck(Vehicle):
    """One in a table of its own."""

    __tablename__ = "truck"
    id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle.id"), primary_key=True)
    tons: Mapped[int]

    __mapper_args__ = {"polymorphic_identity": "truck", "polymorphic_load": "inline"}


class Bike(Vehicle):
    """One in the same table."""

    gears: Mapped[int | None]

    __mapper_args__ = {"polymorphic_identity": "bike"}


@pytest.fixture
def session(each_url: sa.URL) -> Iterator[Session]:
    """A session of a database with some rows of each."""
    database = make_application({"main": each_url}).dbs["main"]
    Base.metadata.create_all(database.engine)
    with database.session() as found:
        found.add_all(City(id=number, name=f"c{number % 3}") for number in range(1, 9))
        found.flush()
        found.add_all(
            Street(id=number, name=f"s{number % 4}", city_id=number % 5 + 1 if number % 3 else None)
            for number in range(12)
        )
        kinds: list[Any] = [Vehicle, Truck, Bike]
        values: list[dict[str, int]] = [{}, {"tons": 7}, {"gears": 3}]
        found.add_all(kinds[number % 3](id=number, **values[number % 3]) for number in range(11))
        found.flush()
        found.expunge_all()
        yield found
    database.dispose()


def check(session: Session, statement: Any, order: Any) -> None:
    """The pages have all rows in the order of the first one, in both directions."""
    rows = session.execute(statement).all()
    whole = paginate_keyset(session, statement, order_by=order, per_page=99).items
    assert len(rows) == len(whole)
    pages = walk(session, statement, order_by=order, per_page=2)
    assert whole == flat(pages)
    back = walk_back(session, statement, pages[-1].prev_token, order_by=order, per_page=2)
    assert whole == flat([*back, pages[-1]])


STREETS = (
    sa.select(City.id.label("city"), Street.name.label("name"), Street.id.label("id"))
    .outerjoin(Street, Street.city_id == City.id)
    .order_by(None)
)
SUBQUERY = STREETS.subquery()
CTE = STREETS.cte("streets")
VEHICLES = with_polymorphic(Vehicle, [Truck])
FLAT = with_polymorphic(Vehicle, [Truck], flat=True)
NESTED = sa.join(
    City.__table__,
    sa.outerjoin(
        Street.__table__,
        Truck.__table__,
        Street.__table__.c.id == Truck.__table__.c.id,
    ),
    City.__table__.c.id == Street.__table__.c.city_id,
)


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        (sa.select(City.id, SUBQUERY.c.id).join(SUBQUERY, SUBQUERY.c.city == City.id), "name"),
        (sa.select(City.id, CTE.c.id).join(CTE, CTE.c.city == City.id), "name"),
        (sa.select(VEHICLES.id), VEHICLES.Truck.tons),
        (sa.select(FLAT), FLAT.Truck.tons),
        (sa.select(City.id, Truck.__table__.c.tons).select_from(NESTED), Truck.__table__.c.tons),
        (sa.select(Street.id, City.name).outerjoin(Street.city), City.name),
        (sa.select(Street.id, City.name).select_from(City).outerjoin(Street), Street.name),
    ],
    ids=["subquery", "cte", "polymorphic", "flat", "nested", "right", "left"],
)
@pytest.mark.parametrize("descending", [False, True])
def test_nulls_of_outer_joins(
    session: Session, statement: Any, column: Any, descending: bool
) -> None:
    """A column that a join leaves empty loses no rows, wherever in the select the join is."""
    if isinstance(column, str):  # of the subquery
        column = statement.get_final_froms()[0].right.c[column]
    for clause in (column.desc(), column.desc().nulls_last()) if descending else (column,):
        check(session, statement, [clause])


def test_names_of_an_outer_joined_model(session: Session) -> None:
    """By name, nulls are first ascending and last descending also where a join makes them."""
    statement = sa.select(City.name).select_from(Street).outerjoin(Street.city)
    check(session, statement, ["name"])
    check(session, statement, ["-name"])
    assert paginate_keyset(session, statement, order_by="name").items[0] is None
    assert paginate_keyset(session, statement, order_by="-name").items[0] is not None


@pytest.mark.parametrize(
    "order", [Truck.tons, Truck.tons.desc(), Truck.tons + 1, Bike.gears, Bike.gears.desc()]
)
def test_fields_of_a_subclass(session: Session, order: Any) -> None:
    """What is loaded with a model can be ordered by, and leaves out no other row."""
    check(session, sa.select(Vehicle), [order])


def test_subclasses_alone(session: Session) -> None:
    """Pages of a subclass have its rows only, also under an alias."""
    for model, order in ((Truck, "-tons"), (Bike, "-gears")):
        for one in (model, aliased(model), aliased(model, flat=True)):
            check(session, sa.select(one), [order, "kind"])


PLACE = sa.func.row_number(type_=sa.Integer).over(order_by=City.id)


@pytest.mark.parametrize(
    "statement",
    [
        sa.select(City, PLACE),
        sa.select(City.id, (PLACE + 1).label("place")),
        sa.select(City.id, sa.func.sum(City.id).filter(City.id > 1).over()),
        sa.select(City.id, sa.literal_column("row_number() OVER (ORDER BY city.id)")),
        sa.select(City).options(with_expression(City.rank, PLACE)),
        sa.select(Ranked),
    ],
)
def test_window_functions(session: Session, statement: Any) -> None:
    """A column that would count anew on each page is refused; one of a subquery is not."""
    with pytest.raises(InvalidArgument, match=r"window function.*subquery"):
        paginate_keyset(session, statement, order_by="id")


def test_window_functions_in_a_subquery(session: Session) -> None:
    """Numbers that a subquery gives are the same on every page, and can be ordered by."""
    inner = sa.select(City.id, PLACE.label("place")).subquery()
    statement = sa.select(City.id, inner.c.place).join(inner, inner.c.id == City.id)
    check(session, statement, [inner.c.place.desc()])
    first = sa.select(PLACE).where(City.id == Street.city_id).correlate(Street).scalar_subquery()
    check(session, sa.select(Street.id, first), ["-name"])


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (sa.tuple_(City.name, City.id), "as a list"),
        (sa.tuple_(City.name, City.id).desc(), "as a list"),
        (PLACE, "not of one row alone"),
        (sa.func.max(City.id), "not of one row alone"),
    ],
)
def test_orders_that_give_no_position(session: Session, order: Any, reason: str) -> None:
    """An order that no row can be compared with is refused with what to do instead."""
    with pytest.raises(InvalidArgument, match=reason):
        paginate_keyset(session, sa.select(City), order_by=[order])
    with pytest.raises(InvalidArgument, match=reason):
        paginate_keyset(session, sa.select(City), order_by=["name", order])


def test_pages_of_any_size(session: Session) -> None:
    """A page that is larger than a database can count has all rows."""
    page = paginate_keyset(session, City, order_by="id", per_page=2**70, max_per_page=2**70)
    assert 8 == len(page)
    assert not page.has_next
