"""Plausible rows for a schema that stands in a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from qapla_db.backends import get_backend
from qapla_db.migrations.rows import Filled, fill, reflect


@pytest.fixture
def engine(each_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine of an empty database, on each kind in turn; foreign keys are enforced."""
    yield from _engine(each_url)


@pytest.fixture
def postgresql_engine(postgresql_database_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine of an empty database on PostgreSQL."""
    yield from _engine(postgresql_database_url)


def _engine(url: sa.URL) -> Iterator[sa.Engine]:
    backend = get_backend(url)
    assert backend is not None
    made = backend.create_engine(url, {"poolclass": sa.NullPool}, label="rows")
    yield made
    made.dispose()


def filled(engine: sa.Engine, count: int = 100, **options: Any) -> Filled:
    with engine.begin() as connection:
        return fill(connection, reflect(connection), count, **options)


def all_of(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def one(engine: sa.Engine, query: str) -> Any:
    return all_of(engine, query)[0][0]


def make(engine: sa.Engine, *tables: sa.Table) -> None:
    tables[0].metadata.create_all(engine)


def numbered(metadata: sa.MetaData, name: str, *parts: sa.schema.SchemaItem) -> sa.Table:
    """Return a table whose key is a number that the server makes."""
    return sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True), *parts)


def airports(metadata: sa.MetaData) -> tuple[sa.Table, sa.Table, sa.Table]:
    country = sa.Table(
        "country",
        metadata,
        sa.Column("code", sa.CHAR(2), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False, unique=True),
    )
    airport = numbered(
        metadata,
        "airport",
        sa.Column("iata", sa.String(3), unique=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("country_code", sa.ForeignKey("country.code"), nullable=False),
        sa.Column("parent_id", sa.ForeignKey("airport.id")),
        sa.Column("opened", sa.Date),
    )
    surface = sa.Enum("asphalt", "concrete", "grass", name="surface", create_constraint=True)
    runway = sa.Table(
        "runway",
        metadata,
        sa.Column("airport_id", sa.ForeignKey("airport.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("surface", surface),
    )
    return country, airport, runway


def test_references_and_unique_columns(engine: sa.Engine) -> None:
    """Every table gets its rows; references hold and unique columns differ."""
    make(engine, *airports(sa.MetaData()))
    result = filled(engine)
    assert {"airport": 100, "country": 100, "runway": 100} == {
        table.table: table.stored for table in result.tables
    }
    assert 300 == result.stored
    assert 0 == result.refused
    assert 100 == one(
        engine, "SELECT count(*) FROM airport JOIN country ON country.code = country_code"
    )
    assert 1 < one(engine, "SELECT count(DISTINCT country_code) FROM airport")
    surfaces = {row[0] for row in all_of(engine, "SELECT DISTINCT surface FROM runway")}
    assert {"asphalt", "concrete", "grass", None} == surfaces


def test_nulls(engine: sa.Engine) -> None:
    """About one in seven is NULL where that is allowed."""
    make(engine, *airports(sa.MetaData()))
    filled(engine, 1000)
    assert 100 < one(engine, "SELECT count(*) FROM airport WHERE opened IS NULL") < 200


def test_references_to_the_own_table(engine: sa.Engine) -> None:
    """Rows refer to others of their own table, and in no circle."""
    make(engine, *airports(sa.MetaData()))
    filled(engine)
    pairs = all_of(engine, "SELECT parent_id, id FROM airport WHERE parent_id IS NOT NULL")
    assert len(pairs) > 20
    assert all(parent < child for parent, child in pairs)


def test_row_that_must_refer_to_its_own_table(engine: sa.Engine) -> None:
    """Where a reference to the own table may not be NULL a row refers to itself."""
    table = numbered(
        sa.MetaData(),
        "node",
        sa.Column("root_id", sa.ForeignKey("node.id"), nullable=False),
    )
    make(engine, table)
    assert 100 == filled(engine).stored
    with engine.begin() as connection:  # the numbers go on behind
        connection.execute(table.insert().values(root_id=1))


def test_circle_of_tables(engine: sa.Engine) -> None:
    """Two tables that refer to each other are both filled, and both refer."""
    metadata = sa.MetaData()
    numbered(
        metadata,
        "team",
        sa.Column("captain_id", sa.Integer),
        sa.ForeignKeyConstraint(["captain_id"], ["player.id"], use_alter=True, name="captain"),
    )
    player = numbered(
        metadata,
        "player",
        sa.Column("team_id", sa.ForeignKey("team.id"), nullable=False),
    )
    make(engine, player)
    assert 200 == filled(engine).stored
    assert one(engine, "SELECT count(captain_id) FROM team") > 20


def test_composite_reference(engine: sa.Engine) -> None:
    """A reference of several columns finds them in one row, also where another shares a column."""
    metadata = sa.MetaData()
    numbered(metadata, "tenant")
    sa.Table(
        "customer",
        metadata,
        sa.Column("tenant_id", sa.ForeignKey("tenant.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    )
    bill = numbered(
        metadata,
        "bill",
        sa.Column("tenant_id", sa.ForeignKey("tenant.id"), nullable=False),
        sa.Column("customer_number", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_number"], ["customer.tenant_id", "customer.number"]
        ),
    )
    make(engine, bill)
    result = filled(engine)
    assert 0 == result.refused
    assert 300 == result.stored


def test_one_to_one(engine: sa.Engine) -> None:
    """A key that is a reference too takes each parent once, and no more rows than parents."""
    metadata = sa.MetaData()
    parent = numbered(metadata, "parent")
    sa.Table("child", metadata, sa.Column("id", sa.ForeignKey("parent.id"), primary_key=True))
    make(engine, parent)
    assert [100, 100] == [table.stored for table in filled(engine).tables]


def test_few_different_values(engine: sa.Engine) -> None:
    """Where there are not as many different values, there are as many rows as values."""
    table = numbered(
        sa.MetaData(),
        "switch",
        sa.Column("is_on", sa.Boolean, nullable=False, unique=True),
    )
    make(engine, table)
    result = filled(engine)
    assert (2, 0) == (result.stored, result.refused)


def test_many_types(engine: sa.Engine) -> None:
    """Values fit the types' lengths, precisions and kinds."""
    metadata = sa.MetaData()
    table = sa.Table(
        "many",
        metadata,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("small", sa.SmallInteger, nullable=False),
        sa.Column("big", sa.BigInteger, nullable=False),
        sa.Column("price", sa.Numeric(5, 3), nullable=False),
        sa.Column("ratio", sa.Float, nullable=False),
        sa.Column("moment", sa.DateTime, nullable=False),
        sa.Column("moment_tz", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("hour", sa.Time, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("uid", sa.Uuid, nullable=False, unique=True),
        sa.Column("raw", sa.LargeBinary(4), nullable=False),
        sa.Column("code", sa.String(4), nullable=False, unique=True),
        sa.Column("email", sa.String(40), nullable=False, unique=True),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("double_small", sa.Integer, sa.Computed("small * 2")),
    )
    make(engine, table)
    result = filled(engine)
    assert [(100, 0, None)] == [(one.stored, one.refused, one.reason) for one in result.tables]
    assert 100 == one(engine, "SELECT count(*) FROM many WHERE double_small = small * 2")
    assert 4 == one(engine, "SELECT max(length(code)) FROM many")
    assert one(engine, "SELECT max(big) FROM many") > 2**31
    assert 40 == one(engine, "SELECT max(length(email)) FROM many")


def test_types_of_postgresql(postgresql_engine: sa.Engine) -> None:
    """Arrays, enums, ranges, networks and identity columns are filled."""
    table = sa.Table(
        "many",
        sa.MetaData(),
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("numbers", sa.ARRAY(sa.Integer), nullable=False),
        sa.Column("kinds", sa.ARRAY(sa.Enum("a", "b", name="kind")), nullable=False),
        sa.Column("grid", sa.ARRAY(sa.Text, dimensions=2), nullable=False),
        sa.Column("data", postgresql.JSONB),
        sa.Column("address", postgresql.INET, nullable=False),
        sa.Column("span", postgresql.INT4RANGE, nullable=False),
        sa.Column("wait", sa.Interval, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("words", postgresql.TSVECTOR, nullable=False),
        sa.Column("domain", postgresql.DOMAIN("positive", sa.Integer), nullable=False),
        sa.Column("uid", sa.Uuid, server_default=sa.text("gen_random_uuid()")),
    )
    make(postgresql_engine, table)
    result = filled(postgresql_engine)
    assert [(100, 0, None)] == [(one.stored, one.refused, one.reason) for one in result.tables]
    kinds = all_of(postgresql_engine, "SELECT DISTINCT unnest(kinds) FROM many ORDER BY 1")
    assert [("a",), ("b",)] == kinds
    assert one(postgresql_engine, "SELECT count(*) FROM many WHERE data IS NULL") > 0


def test_checks_that_are_understood(engine: sa.Engine) -> None:
    """Lists of words and bounds of numbers in a CHECK are kept to."""
    table = numbered(
        sa.MetaData(),
        "checked",
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("stars", sa.Integer, nullable=False),
        sa.Column("price", sa.Numeric(8, 2), nullable=False),
        sa.CheckConstraint("state IN ('new', 'it''s done')"),
        sa.CheckConstraint("stars BETWEEN 1 AND 5"),
        sa.CheckConstraint("price > 0 AND price <= 20"),
    )
    make(engine, table)
    result = filled(engine)
    assert (100, 0) == (result.stored, result.refused)
    states = all_of(engine, "SELECT DISTINCT state FROM checked ORDER BY 1")
    assert [("it's done",), ("new",)] == states


def test_bounds_of_floating_point_numbers(engine: sa.Engine) -> None:
    """Bounds that the server writes with casts are kept to, and nearly reached."""
    bounds = sa.CheckConstraint("longitude BETWEEN -180 AND 180")
    column = sa.Column("longitude", sa.Double, nullable=False)
    make(engine, numbered(sa.MetaData(), "place", column, bounds))
    assert 0 == filled(engine).refused
    least, most = all_of(engine, "SELECT min(longitude), max(longitude) FROM place")[0]
    assert least < -90
    assert most > 90


def test_rows_that_a_check_refuses(engine: sa.Engine) -> None:
    """Of rows that a CHECK refuses some, the others are stored, and it is said how many not."""
    table = numbered(
        sa.MetaData(),
        "odd",
        sa.Column("number", sa.Integer, nullable=False),
        sa.CheckConstraint("number % 3 <> 0", name="not_of_three"),
    )
    make(engine, table)
    (result,) = filled(engine, 300).tables
    assert 300 == result.stored + result.refused
    assert 50 < result.refused < 150
    assert "not_of_three" in str(result.reason)
    assert result.stored == one(engine, "SELECT count(*) FROM odd")


def test_table_that_takes_nothing(engine: sa.Engine) -> None:
    """A table that takes no row is given up, with the reason, and the others are filled."""
    metadata = sa.MetaData()
    numbered(
        metadata,
        "never",
        sa.Column("number", sa.Integer, nullable=False),
        sa.CheckConstraint("number * 0 = 1", name="never_true"),
    )
    other = numbered(metadata, "other")
    make(engine, other)
    never, second = filled(engine, 1000).tables
    assert (0, 1000) == (never.stored, never.refused)
    assert "never_true" in str(never.reason)
    assert 1000 == second.stored


def test_rows_that_exist(engine: sa.Engine) -> None:
    """What a migration has stored before stays, is referred to, and is not repeated."""
    country, airport, runway = airports(sa.MetaData())
    make(engine, country, airport, runway)
    with engine.begin() as connection:
        connection.execute(country.insert().values(code="AB", name="Arlanda 1"))
    assert 300 == filled(engine, skip=()).stored
    assert 300 == filled(engine, seed=1).stored
    assert 201 == one(engine, "SELECT count(*) FROM country")


def test_skip(engine: sa.Engine) -> None:
    """Tables to leave alone stay as they are."""
    make(engine, *airports(sa.MetaData()))
    result = filled(engine, skip={"runway"})
    assert ["country", "airport"] == [table.table for table in result.tables]
    assert 0 == one(engine, "SELECT count(*) FROM runway")


def test_seed(engine: sa.Engine) -> None:
    """The same seed gives the same rows, another one others."""
    country, airport, runway = airports(sa.MetaData())
    seen = []
    for seed in (1, 1, 2):
        make(engine, country, airport, runway)
        filled(engine, seed=seed)
        seen.append(all_of(engine, "SELECT name, country_code, parent_id FROM airport ORDER BY id"))
        country.metadata.drop_all(engine)
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_schemas_and_partitions(postgresql_engine: sa.Engine) -> None:
    """Other schemas are filled too; a partition through the table that it is a part of."""
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA other")
        connection.exec_driver_sql("CREATE TABLE other.plane (id serial PRIMARY KEY, name text)")
        connection.exec_driver_sql(
            "CREATE TABLE flight (id int, plane_id int REFERENCES other.plane, PRIMARY KEY (id)) "
            "PARTITION BY RANGE (id)"
        )
        connection.exec_driver_sql(
            "CREATE TABLE flight_1 PARTITION OF flight FOR VALUES FROM (0) TO (10000000)"
        )
    result = filled(postgresql_engine)
    assert {"other.plane": 100, "flight": 100} == {
        table.table: table.stored for table in result.tables
    }


def test_type_that_is_not_known(postgresql_engine: sa.Engine) -> None:
    """A type without known values is left NULL, or the table is left empty with the reason."""
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE shape (id serial PRIMARY KEY, line path)")
        connection.exec_driver_sql("CREATE TABLE must (id serial PRIMARY KEY, line path NOT NULL)")
    found = {table.table: table for table in filled(postgresql_engine).tables}
    assert 100 == found["shape"].stored
    assert (0, 100) == (found["must"].stored, found["must"].refused)
    assert "line" in str(found["must"].reason)


def test_domain_with_a_check(postgresql_engine: sa.Engine) -> None:
    """The CHECK of a domain is kept to, and its limit is reached."""
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 1 AND 9)")
        connection.exec_driver_sql("CREATE TABLE part (of percent NOT NULL)")
    assert 100 == filled(postgresql_engine).stored
    assert 9 == one(postgresql_engine, "SELECT max(of) FROM part")


@pytest.mark.parametrize("each_url", ["mariadb"], indirect=True)
def test_unsigned(engine: sa.Engine) -> None:
    """A column without a sign has no negative numbers, but such as one with a sign cannot hold."""
    kinds = {"a": mysql.INTEGER, "b": mysql.BIGINT, "c": mysql.SMALLINT}
    columns = [sa.Column(name, kind(unsigned=True)) for name, kind in kinds.items()]
    make(engine, numbered(sa.MetaData(), "bare", *columns))
    assert 0 == filled(engine).refused
    (most,) = all_of(engine, "SELECT max(a), max(b), max(c) FROM bare")
    assert [True, True, True] == [a >= b for a, b in zip(most, (2**31, 2**63, 2**15), strict=True)]
