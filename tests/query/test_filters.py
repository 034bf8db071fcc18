"""Filters and orders as data: what they compare, and what they refuse."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_method
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db import Database
from qapla_db.errors import InvalidArgument
from tests.query.models import City, Colour, Everything, Note, Street, User


class Base(DeclarativeBase):
    """Base of the model here."""


class Doubled(sa.types.TypeDecorator[int]):
    """A type of one's own, which takes a string of digits."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> int | None:
        """Twice the number."""
        return None if value is None else 2 * int(value)


class Parcel(Base):
    """A hybrid method, and a type of one's own."""

    __tablename__ = "parcel"
    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int] = mapped_column(Doubled)

    @hybrid_method
    def heavier(self, than: int) -> Any:
        """Whether it weighs more."""
        return self.weight > than


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A session with one row of every type."""
    Base.metadata.create_all(database.engine)
    with database.transaction() as session:
        session.add_all([City(code="c1", name="n", size=0), Parcel(id=1, weight="21")])
        session.add(
            Everything(
                id=1,
                text="t",
                number=7,
                real=0.5,
                amount=decimal.Decimal("1.5"),
                yes=True,
                day=datetime.date(2026, 1, 2),
                colour=Colour.RED,
            )
        )
    with database.session() as session:
        yield session


@pytest.mark.parametrize(
    ("model", "filter_by"),
    [
        (City, {"code": 0}),
        (City, {"code": b"c1"}),
        (City, {"code": ["c1", 0]}),
        (City, {"code": {"c1": 1}}),
        (City, {"code": (one for one in ["c1"])}),
        (City, {"code": [["c1"]]}),
        (City, {"size": "abc"}),
        (City, {"size": "0"}),
        (City, {"size": [0, "0"]}),
        (City, {"size": object()}),
        (Everything, {"text": 0}),
        (Everything, {"real": "0.5"}),
        (Everything, {"amount": "abc"}),
        (Everything, {"yes": "abc"}),
        (Everything, {"yes": 2}),
        (Everything, {"day": {"a": 1}}),
        (Everything, {"day": iter(())}),
        (Everything, {"data": iter(())}),
    ],
)
def test_values_of_another_type(session: Session, model: Any, filter_by: Any) -> None:
    """They are refused by everything that takes a filter, and named by their type alone."""
    finder: Any = session
    field, value = next(iter(filter_by.items()))
    for method in (finder.find, finder.find_one, finder.count, finder.check_exists):
        with pytest.raises(InvalidArgument, match=rf"{model.__name__}\.{field} with") as caught:
            method(model, filter_by)
        if isinstance(value, bytes):
            assert "of the type bytes" in str(caught.value)
            assert "c1" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "filter_by"),
    [
        (City, {"code": "c1", "size": 0}),
        (City, {"size": False}),
        (City, {"size": [False, True]}),
        (City, {"size": [0.0, None]}),
        (City, {"size": decimal.Decimal(0)}),
        (City, {"code": City.code}),
        (City, {"code": sa.func.lower("C1")}),
        (City, {"code": sa.select(City.code).scalar_subquery()}),
        (City, {"size": range(3)}),
        (Everything, {"text": "t", "number": 7, "real": 0.5, "yes": True, "colour": Colour.RED}),
        (Everything, {"amount": decimal.Decimal("1.5"), "colour": "RED", "yes": 1}),
        (Everything, {"amount": 1.5, "day": datetime.date(2026, 1, 2)}),
        (Parcel, {"weight": "21"}),
    ],
)
def test_values_of_the_type(session: Session, model: Any, filter_by: Any) -> None:
    """What a column's type goes with is found, and what a type of one's own takes."""
    finder: Any = session
    assert 1 == finder.count(model, filter_by)
    assert finder.find_one(model, filter_by) is not None


def test_hybrid_methods(session: Session) -> None:
    """A method is refused as a field, and works as the expression that it makes."""
    finder: Any = session
    with pytest.raises(InvalidArgument, match=r"Parcel\.heavier is a method"):
        finder.find(Parcel, {"heavier": 1})
    with pytest.raises(InvalidArgument, match=r"Parcel\.heavier is a method"):
        finder.find(Parcel, order_by="heavier")
    assert 1 == finder.count(Parcel, Parcel.heavier(20))


@pytest.mark.parametrize(
    ("model", "name", "fields"),
    [
        (City, "streets", "code, name, size"),
        (Street, "-city", "city_code, id, name"),
    ],
)
def test_orders_by_a_relationship(session: Session, model: Any, name: str, fields: str) -> None:
    """What cannot be ordered by is refused with what can."""
    finder: Any = session
    wanted = f"cannot be ordered by '{name.removeprefix('-')}'; its fields to order by are {fields}"
    with pytest.raises(InvalidArgument, match=re.escape(wanted)):
        finder.find(model, order_by=name)


@pytest.mark.parametrize("name", ["password", "-password", "metadata", "__init__", "", "-", "--x"])
def test_hostile_orders(session: Session, name: str) -> None:
    """A name from outside orders, or is an argument that is not valid; never another error."""
    finder: Any = session
    with pytest.raises(InvalidArgument):
        finder.find(User, order_by=name)
    assert [] == list(finder.find(Note, order_by="-stars"))
