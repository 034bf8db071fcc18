"""Pages by number of selects with aggregates, grouping sets, unique joins and criteria."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, joinedload, with_loader_criteria

from qapla_db.errors import InvalidArgument
from qapla_db.query.pages import paginate
from qapla_db.query.reading import check_exists, count
from tests.query.models import Account, Airport, City, Street
from tests.query.test_pages import CITIES, everything, session

__all__ = ["session"]

FIRST = with_loader_criteria(City, City.name != "name 1", include_aliases=True)


def test_loader_criteria_are_counted(session: Session) -> None:
    """Rows that with_loader_criteria() leaves out are in no total, count or answer."""
    alias = aliased(City)
    statement: sa.Select[Any]
    for statement in (CITIES, sa.select(alias), CITIES.options(joinedload(City.streets))):
        hidden = statement.options(FIRST)
        assert 5 == len(everything(session, hidden))
        assert 5 == count(session, hidden)
        assert 3 == paginate(session, hidden, per_page=1, count=3).more_than
    streets = sa.select(Street).join(Street.city).options(FIRST)
    assert 15 == len(everything(session, streets)) == count(session, streets)
    assert not check_exists(session, CITIES.options(FIRST), City.code == "c1")
    assert check_exists(session, CITIES.options(FIRST), City.code == "c2")


@pytest.mark.parametrize("size", [sys.maxsize, sys.maxsize - 1, 2**63])
def test_pages_of_any_size(session: Session, size: int) -> None:
    """A page larger than a database can count has all rows, and the one after it none."""
    for counted in (True, False, 10**30):
        page = paginate(session, CITIES, per_page=size, max_per_page=size, count=counted)
        assert 7 == len(page)
        assert not page.has_next
        assert [] == page.next().items
        assert 2 == len(paginate(session, CITIES, per_page=2, count=counted))


def test_joins_by_a_unique_field(session: Session) -> None:
    """A join that finds one row at most, by a unique constraint, repeats nothing."""
    session.add_all(
        Airport(id=number, code=f"c{number}", name="x", country="PL") for number in range(1, 5)
    )
    session.add_all(Account(key=one, tenant=one, login="c1") for one in range(1, 4))
    session.flush()
    eager = CITIES.options(joinedload(City.streets))
    alias = aliased(Airport)
    for airport in (Airport, alias):
        joined = eager.outerjoin(airport, airport.code == City.code)
        assert 7 == len(set(everything(session, joined)))
    pair = sa.and_(Account.login == City.code, Account.tenant == 2)
    assert 7 == len(set(everything(session, eager.outerjoin(Account, pair))))
    for condition in (Account.login == City.code, Account.tenant == 2):
        with pytest.raises(InvalidArgument, match="may repeat rows of City"):
            paginate(session, eager.outerjoin(Account, condition), per_page=2)
    with pytest.raises(InvalidArgument, match="may repeat rows of City"):
        paginate(session, eager.outerjoin(Airport, Airport.code >= City.code), per_page=2)


def test_unique_indexes_of_some_rows(session: Session) -> None:
    """An index that is unique of some rows, or of an expression, does not make a join unique."""
    metadata = sa.MetaData()
    plain, partial, computed = (
        sa.Table(name, metadata, sa.Column("code", sa.String(8)), sa.Column("id", sa.Integer))
        for name in ("plain", "partial", "computed")
    )
    sa.Index("plain_code", plain.c.code, unique=True)
    where = partial.c.id > 0
    sa.Index(
        "partial_code", partial.c.code, unique=True, sqlite_where=where, postgresql_where=where
    )
    sa.Index("computed_code", sa.func.lower(computed.c.code), unique=True)
    metadata.create_all(session.connection(), tables=[plain])
    eager = CITIES.options(joinedload(City.streets))
    assert 7 == len(everything(session, eager.outerjoin(plain, plain.c.code == City.code)))
    partial.create(session.connection())
    sa.Table("computed", sa.MetaData(), *(c._copy() for c in computed.c)).create(
        session.connection()
    )
    for table in (partial, computed):
        with pytest.raises(InvalidArgument, match="may repeat rows of City"):
            paginate(session, eager.outerjoin(table, table.c.code == City.code), per_page=2)
    metadata.drop_all(session.connection())


def test_functions_that_nobody_knows(session: Session) -> None:
    """A function may be an aggregate or not: its select has pages in either case."""
    scalar = sa.select(sa.func.trim(City.code)), sa.select(sa.func.hex(Street.id))
    if session.get_bind().dialect.name == "postgresql":
        scalar = sa.select(sa.func.to_hex(Street.id)), sa.select(sa.func.ascii(City.name))
        for name in ("corr", "regr_slope", "covar_samp"):
            one = sa.select(getattr(sa.func, name)(Street.id, Street.id))
            assert 1 == len(everything(session, one))
        session.execute(
            sa.text("CREATE AGGREGATE largest(bigint) (SFUNC = int8larger, STYPE = bigint)")
        )
        largest = sa.func.largest(sa.cast(Street.id, sa.BigInteger))
        assert 1 == len(everything(session, sa.select(largest)))
        assert 1 == len(everything(session, sa.select(sa.func.coalesce(largest, 0).label("n"))))
        document = sa.func.json_strip_nulls(sa.func.json_build_object("a", Street.id))
        assert 21 == len(everything(session, sa.select(document)))
    for statement in scalar:
        rows = list(session.scalars(statement))
        assert sorted(rows) == sorted(everything(session, statement))


@pytest.mark.parametrize("each_url", ["postgresql"], indirect=True)  # MariaDB, SQLite: no such sets
def test_grouping_sets(session: Session) -> None:
    """Totals of totals are on one page each, also where a group is named by a NULL."""
    session.add_all(Airport(code=f"a{one}", name=f"n{one % 2}", country=None) for one in range(4))
    session.flush()
    counted = sa.select(Airport.name, Airport.country, sa.func.count())
    for sets in (
        [sa.func.rollup(Airport.name, Airport.country)],
        [sa.func.cube(Airport.name, Airport.country)],
        [sa.func.grouping_sets(sa.tuple_(Airport.name, Airport.country), sa.tuple_(Airport.name))],
        [Airport.name, sa.func.rollup(Airport.country)],
    ):
        statement = counted.group_by(*sets)
        rows = [tuple(row) for row in session.execute(statement)]
        found = [tuple(row) for row in everything(session, statement)]
        assert sorted(map(str, rows)) == sorted(map(str, found))
