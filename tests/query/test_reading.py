"""Reading: one, several, how many, any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, contains_eager, joinedload

from qapla_db import Database
from qapla_db.errors import InvalidArgument, Misuse, MultipleFound, UnknownField
from qapla_db.query.reading import check_exists, count, find, find_one
from tests.query.models import Airport, Animal, City, Dog, Street, Truck, Vehicle

CITIES = [("KRK", "Kraków", 800), ("WAW", "Warszawa", 1800), ("GDN", "Gdańsk", None)]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A session of a database with three cities and four streets."""
    with database.transaction() as session:
        session.add_all([City(code=code, name=name, size=size) for code, name, size in CITIES])
        session.flush()
        session.add_all([Street(id=one, city_code="WAW", name=f"s{one}") for one in range(1, 4)])
        session.add(Street(id=9, city_code="KRK", name="s0"))
    with database.session() as session:
        yield session


def codes(cities: Any) -> list[str]:
    """The keys of some cities, in their order."""
    return [city.code for city in cities]


@pytest.mark.parametrize(
    ("filter_by", "expected"),
    [
        (None, ["GDN", "KRK", "WAW"]),
        ({}, ["GDN", "KRK", "WAW"]),
        ({"size": None}, ["GDN"]),
        ({"size": [800, None]}, ["GDN", "KRK"]),
        ({"code": ["WAW", "KRK"], "name": "Warszawa"}, ["WAW"]),
        ({"code": []}, []),
        (City.size > 1000, ["WAW"]),
        ((City.size > 1000) | (City.code == "KRK"), ["KRK", "WAW"]),
    ],
)
def test_filters(session: Session, filter_by: Any, expected: list[str]) -> None:
    """All readers agree on what a filter means, in the order of the key."""
    assert expected == codes(find(session, City, filter_by, paginate=False))
    assert expected == codes(find(session, City, filter_by))
    assert expected == codes(find(session, sa.select(City), filter_by, paginate=False))
    assert len(expected) == count(session, City, filter_by)
    assert len(expected) == count(session, sa.select(City), filter_by)
    assert bool(expected) == check_exists(session, City, filter_by)
    if len(expected) > 1:
        with pytest.raises(MultipleFound, match="more than one City"):
            find_one(session, City, filter_by)
    else:
        found = find_one(session, City, filter_by)
        assert expected == ([] if found is None else [found.code])


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("size", ["GDN", "KRK", "WAW"]),
        ("-size", ["WAW", "KRK", "GDN"]),
        (["-name"], ["WAW", "KRK", "GDN"]),
        ([City.name.desc()], ["WAW", "KRK", "GDN"]),
    ],
)
def test_orders(session: Session, order_by: Any, expected: list[str]) -> None:
    """Nulls come first ascending and last descending, on every kind of database."""
    assert expected == codes(find(session, City, order_by=order_by, paginate=False))
    assert expected == codes(find(session, City, order_by=order_by))


def test_page(session: Session) -> None:
    """Pages are what find() gives, unless a list is asked for."""
    page = find(session, City, order_by="code", page=2, per_page=2)
    assert (["WAW"], 3, 2) == (codes(page), page.total, page.page)


def test_select_keeps_what_it_says(session: Session) -> None:
    """A select's own conditions, order, joins and columns stay."""
    big = sa.select(City).where(City.size > 1).order_by(City.size.desc())
    assert ["WAW", "KRK"] == codes(find(session, big, paginate=False))
    assert 1 == count(session, big, {"code": "KRK"})
    assert not check_exists(session, big, {"code": "GDN"})
    names = find(session, sa.select(City.name).where(City.size > 1), paginate=False)
    assert ["Kraków", "Warszawa"] == names
    rows = find(session, sa.select(City.code, City.size), paginate=False)
    assert [("GDN", None), ("KRK", 800), ("WAW", 1800)] == rows
    assert ["s0", "s1", "s2", "s3"] == sorted(find(session, sa.select(Street.name), paginate=False))
    assert 2 == count(session, sa.select(Street.city_code).distinct())
    assert 2 == count(session, sa.select(City).limit(2))


def test_aliases(session: Session) -> None:
    """An alias is read as its class is, also one of a subquery with a limit."""
    largest = sa.select(City).where(City.size > 0).order_by(City.size.desc()).limit(1)
    city = aliased(City, largest.subquery())
    target: Any
    for target in (city, sa.select(city)):
        assert ["WAW"] == codes(find(session, target, order_by="-name"))
        assert [] == find(session, target, {"code": "KRK"}, paginate=False)
        assert "Warszawa" == getattr(find_one(session, target, {"code": "WAW"}), "name", None)
        assert check_exists(session, target, {"code": "WAW"})
        assert not check_exists(session, target, {"code": "KRK"})
        assert (1, 0) == (count(session, target), count(session, target, {"code": "KRK"}))
    with pytest.raises(UnknownField, match=r"aliased\(City\) has no field 'nope'"):
        find(session, city, {"nope": 1})


def test_joins(session: Session) -> None:
    """A join that repeats one instance does not make it several; a count is of rows."""
    joined = sa.select(City).join(City.streets)
    warsaw = find_one(session, joined, {"code": "WAW"})
    assert warsaw is not None
    assert "Warszawa" == warsaw.name
    with pytest.raises(MultipleFound):
        find_one(session, joined)
    assert 3 == count(session, joined, {"code": "WAW"})


def test_eager_loads(session: Session) -> None:
    """Joined eager loading gives every instance once, with all that belongs to it."""
    eager = sa.select(City).options(joinedload(City.streets))
    found = find(session, eager, paginate=False)
    assert ["GDN", "KRK", "WAW"] == codes(found)
    assert [0, 1, 3] == [len(city.streets) for city in found]
    warsaw = find_one(session, eager, {"code": "WAW"})
    assert warsaw is not None
    assert 3 == len(warsaw.streets)
    assert 3 == count(session, eager)


def test_filter_and_limit(session: Session) -> None:
    """A filter on a select with a limit is refused, since it would act before the limit."""
    limited = sa.select(City).order_by(City.code).limit(1)
    with pytest.raises(InvalidArgument, match="would act before"):
        find_one(session, limited, {"code": "WAW"})
    found = find_one(session, limited)
    assert found is not None
    assert "GDN" == found.code


def test_inheritance(session: Session) -> None:
    """A class is found with its subclasses, and a subclass alone."""
    session.add_all([Animal(name="a"), Dog(name="d"), Vehicle(plate="v"), Truck(plate="t", tons=1)])
    session.flush()
    assert (2, 1) == (count(session, Animal), count(session, Dog))
    assert (2, 1) == (count(session, Vehicle), count(session, Truck))
    assert not check_exists(session, Dog, {"name": "a"})
    assert check_exists(session, Truck, {"plate": "t"})


def test_pending_instances_are_seen(session: Session) -> None:
    """What the session has not flushed yet is flushed before a read, as SQLAlchemy does."""
    session.add(Airport(code="EPWA", name="Chopin"))
    assert 1 == count(session, Airport)
    assert check_exists(session, Airport, {"code": "EPWA"})


def test_misuse(session: Session) -> None:
    """Unknown fields and targets that are none are named."""
    with pytest.raises(UnknownField, match="City has no field 'naem'"):
        find(session, City, {"naem": 1})
    with pytest.raises(UnknownField, match="size"):
        find(session, City, order_by="-sice")
    target: Any
    for target in ("City", None, sa.select(sa.func.now())):
        with pytest.raises(Misuse):
            count(session, target, {"code": 1})


def test_rows_of_equal_values_are_several(session: Session) -> None:
    """find_one counts rows, whatever their values are; a limit lets it read no more than two."""
    seen: list[Any] = []
    statement = sa.select(Street.city_code)
    with pytest.raises(MultipleFound):
        find_one(session, statement, {"city_code": "WAW"})
    assert "KRK" == find_one(session, statement, {"city_code": "KRK"})
    joined = sa.select(Street.city_code).join(Street.city)
    with pytest.raises(MultipleFound):
        find_one(session, joined, {"city_code": "WAW"})
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *all: seen.append(all[2]))
    with pytest.raises(MultipleFound):
        find_one(session, sa.select(Street).join(Street.city))
    assert [True] == ["LIMIT" in one for one in seen if "FROM street" in one]
    filled = sa.select(City).join(City.streets).options(contains_eager(City.streets))
    city = find_one(session, filled, {"code": "WAW"})
    assert city is not None
    assert 3 == len(city.streets)


def test_counting_locks_nothing(session: Session) -> None:
    """A count, and the question whether there is any, do without the FOR UPDATE of a select."""
    seen: list[Any] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *all: seen.append(all[2]))
    locking = sa.select(City).with_for_update()
    assert 3 == count(session, locking)
    assert check_exists(session, locking, {"code": "WAW"})
    assert locking._for_update_arg is not None
    assert [False, False] == ["FOR UPDATE" in one for one in seen if "FROM city" in one]


def test_filters_of_many_values(session: Session) -> None:
    """A filter takes 65,000 values; more of them are an error that says what to do."""
    assert 1 == count(session, Street, {"id": range(3, 32_000)}) - 1
    with pytest.raises(InvalidArgument, match=r"70,000 values.*65,000 at most.*select"):
        count(session, Street, {"id": range(70_000)})
    with pytest.raises(InvalidArgument, match="80,000 values"):
        count(session, Street, {"id": range(40_000), "name": ["s1"] * 40_000})
