"""Revisions that take something away from values: the rows must have what is taken away."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qapla_db.migrations.rehearsal import Rehearsal, rehearse
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project

THINGS = """
from sqlalchemy.dialects import mysql
exact = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
exact_time = sa.Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")
op.create_table(
    "thing",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("wide", sa.String(3000), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("email", sa.String(80), nullable=False, unique=True),
    sa.Column("code", sa.String(3), unique=True),
    sa.Column("label", sa.String(40), sa.CheckConstraint("length(label) > 0"), nullable=False),
    sa.Column("trimmed", sa.String(40)),
    sa.Column("quoted", sa.Text),
    sa.Column("percent", sa.String(60)),
    sa.Column("letters", sa.Text),
    sa.Column("no_empty", sa.String(20)),
    sa.Column("no_null", sa.String(20)),
    sa.Column("price", sa.Numeric(12, 4)),
    sa.Column("digits", sa.Numeric(12, 2)),
    sa.Column("debt", sa.Numeric(8, 2)),
    sa.Column("big", sa.BigInteger),
    sa.Column("positive", sa.BigInteger, sa.CheckConstraint("positive >= 0"), nullable=False),
    sa.Column("small", sa.Integer),
    sa.Column("minus", sa.Integer, nullable=False),
    sa.Column("cold", sa.Float),
    sa.Column("moment", exact),
    sa.Column("midnight", exact, nullable=False),
    sa.Column("clock", exact_time, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
)
"""

_SECONDS = {
    "postgresql": "date_trunc('second', {0})",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S', {0}) || '.000000'",
    "mariadb": "CAST({0} AS DATETIME(0))",
}
_DAYS = {
    "postgresql": "date_trunc('day', {0})",
    "sqlite": "strftime('%Y-%m-%d', {0}) || ' 00:00:00.000000'",
    "mariadb": "CAST(CAST({0} AS DATE) AS DATETIME)",
}
_CLOCK = {
    "postgresql": "date_trunc('second', {0})::time",
    "sqlite": "substr({0}, 1, 8) || '.000000'",
    "mariadb": "CAST({0} AS TIME(0))",
}


def poorer(kind: str) -> dict[str, str]:
    """Return of each column of ``thing`` what a careless revision would make of it."""
    return {
        "name": "substr(name, 1, 199)",
        "wide": "substr(wide, 1, 2999)",
        "note": "substr(note, 1, 255)",
        "email": "lower(email)",
        "code": "upper(code)",
        "label": "lower(label)",
        "trimmed": "trim(trimmed)",
        "quoted": "replace(quoted, '\"', '')",
        "percent": "replace(percent, '%', '')",
        "letters": "replace(letters, 'ß', 'ss')",
        "no_empty": "nullif(no_empty, '')",
        "no_null": "coalesce(no_null, '')",
        "price": "round(price, 1)",
        "digits": "CASE WHEN digits > 999999999.99 THEN 0 ELSE digits END",
        "debt": "abs(debt)",
        "big": "CASE WHEN big > 2147483647 THEN 2147483647 ELSE big END",
        "positive": "CASE WHEN positive > 2147483647 THEN 0 ELSE positive END",
        "small": "CASE WHEN small > 32767 THEN 32767 ELSE small END",
        "minus": "abs(minus)",
        "cold": "abs(cold)",
        "moment": _SECONDS[kind].format("moment"),
        "midnight": _DAYS[kind].format("midnight"),
        "clock": _CLOCK[kind].format("clock"),
        "raw": "CASE WHEN length(raw) > 7 THEN substr(raw, 1, 7) ELSE raw END",
    }


def changed(project: Project, *statements: str, create: str = THINGS) -> Rehearsal:
    project.revision("a1", create, "op.drop_table('thing')")
    body = "\n".join(f"op.execute({one!r})" for one in statements)
    project.revision("a2", body, "raise NotImplementedError('no way back')", after="a1")
    return rehearse(project.database())


def columns(report: Rehearsal) -> set[str | None]:
    return {one.column for one in report.findings if one.kind == "changed values"}


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "mariadb"])
def test_poorer_values(make_project: MakeProject, fresh_url: FreshURL, kind: str) -> None:
    """Whatever a revision takes away from values is noticed: length, case, blanks, decimals..."""
    project = make_project({"main": fresh_url(kind)})
    made = poorer(kind)
    report = changed(project, *(f"UPDATE thing SET {name} = {made[name]}" for name in made))  # noqa: S608
    assert (100, set(made)) == (report.rows, columns(report))


@pytest.fixture
def postgresql(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    return make_project({"main": fresh_url("postgresql")})


def narrowed(project: Project, first: str, then: str, using: str) -> Rehearsal:
    """Rehearse that a column gets another type."""
    create = f"op.execute('CREATE TABLE thing (id serial PRIMARY KEY, x {first} NOT NULL)')"
    statement = f"ALTER TABLE thing ALTER x TYPE {then} USING {using}"
    return changed(project, statement, create=create)


@pytest.mark.parametrize(
    ("first", "then", "using"),
    [
        ("varchar(200)", "varchar(20)", "left(x, 20)"),
        ("varchar(30)", "varchar(29)", "substring(x, 1, 29)"),
        ("text", "varchar(255)", "x::varchar(255)"),
        ("numeric(12, 4)", "numeric(12, 1)", "x::numeric(12, 1)"),
        ("numeric", "numeric(30, 3)", "x::numeric(30, 3)"),
        ("bigint", "double precision", "x::double precision"),
        ("double precision", "real", "x::real"),
        ("timestamptz", "date", "x::date"),
        ("timestamptz", "timestamp", "x::timestamp"),
        ("timestamptz", "timestamptz(3)", "x::timestamptz(3)"),
        ("timestamp", "timestamp(0)", "x::timestamp(0)"),
        ("timetz", "time", "x::time"),
        ("time", "time(0)", "x::time(0)"),
        ("interval", "interval(0)", "x::interval(0)"),
        ("date", "date", "greatest(x, '1970-01-01')"),
        ("integer[]", "integer[]", "nullif(x, '{}')"),
        ("varchar(10)", "char(10)", "x::char(10)"),
    ],
)
def test_narrower_type(postgresql: Project, first: str, then: str, using: str) -> None:
    """A type that holds less of the values is noticed."""
    report = narrowed(postgresql, first, then, using)
    found = report.findings[0]
    if first == "integer[]":  # an empty one became NULL
        assert "failed upgrade" == found.kind
    else:
        assert ("changed values", "x") == (found.kind, found.column)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("bigint", "integer"),
        ("integer", "smallint"),
        ("numeric(12, 2)", "numeric(11, 2)"),
        ("numeric(20)", "bigint"),
    ],
)
def test_type_that_is_too_small(postgresql: Project, first: str, then: str) -> None:
    """A type that is too small for some of the values fails the rehearsal."""
    found = narrowed(postgresql, first, then, f"x::{then}").findings[0]
    assert ("failed upgrade", "a2") == (found.kind, found.revision)


def test_values_are_shown(postgresql: Project) -> None:
    """Blanks can be seen in the examples, and so can what is cut from the end of a long text."""
    create = "op.create_table('thing', sa.Column('id', sa.Integer, primary_key=True), "
    create += "sa.Column('x', sa.String(90)), sa.Column('y', sa.String(20)))"
    report = changed(
        postgresql,
        "UPDATE thing SET x = left(x, 70), y = nullif(y, '')",
        create=create,
    )
    long, empty = (one.examples[0] for one in report.findings[:2])
    assert long.endswith("... (70 characters)")
    assert empty.endswith("'' -> NULL")


def test_values_within_checks(make_project: MakeProject, each_url: sa.URL) -> None:
    """What a CHECK asks for is kept to, also where it is not understood, and no row is refused."""
    create = """
    op.create_table(
        "thing",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.String(4), sa.CheckConstraint("code = upper(code)"), nullable=False),
        sa.Column("bare", sa.String(30), sa.CheckConstraint("bare = trim(bare) AND bare <> ''")),
        sa.Column("filled", sa.String(30), sa.CheckConstraint("filled <> ''"), nullable=False),
        sa.Column("price", sa.Numeric(12, 2), sa.CheckConstraint("price >= 0.5")),
        sa.Column("level", sa.Integer, sa.CheckConstraint("level BETWEEN -5 AND 1000000")),
        sa.Column("depth", sa.Integer, sa.CheckConstraint("depth <= 100")),
        sa.Column("odd", sa.Integer, sa.CheckConstraint("odd >= 0 OR odd IS NULL")),
    )
    """
    report = changed(
        make_project({"main": each_url}),
        "UPDATE thing SET level = 500000 WHERE level > 500000",
        "UPDATE thing SET depth = -depth",
        create=create,
    )
    assert 100 == report.rows
    assert {"level", "depth"} == columns(report)
