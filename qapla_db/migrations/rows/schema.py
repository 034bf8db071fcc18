"""A schema as it stands in a database, and the order in which its tables can be filled."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.query.fields import is_given_by_database

__all__ = ["checks_of", "in_order", "is_generated", "is_nullable", "may_be_null", "reflect"]

_NOT_OURS = sa.text(
    "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relispartition OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d "
    "WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
)
_MARIADB_CHECKS = sa.text(
    "SELECT table_name, check_clause FROM information_schema.check_constraints "
    "WHERE constraint_schema = DATABASE()"
)


def reflect(connection: Connection) -> sa.MetaData:
    """Return the tables of a database, of all its schemas.

    Partitions are left to the table that they are parts of, and an
    extension's tables to the extension.
    """
    inspector = sa.inspect(connection)
    schemas: list[str | None] = [None]
    left_out: set[tuple[str, str]] = set()
    if connection.dialect.name == "postgresql":
        default = inspector.default_schema_name
        names = inspector.get_schema_names()  # without those of the system
        schemas += [name for name in names if name not in (default, "information_schema")]
        left_out = {(row[0], row[1]) for row in connection.execute(_NOT_OURS)}
    else:
        default = None
    metadata = sa.MetaData()
    with warnings.catch_warnings():
        # types and indexes that SQLAlchemy does not know
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        for schema in schemas:
            place = str(schema or default)

            def is_wanted(name: str, _: sa.MetaData, place: str = place) -> bool:
                return (place, name) not in left_out

            metadata.reflect(connection, schema=schema, only=is_wanted)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = True
    return metadata


def is_generated(column: sa.Column[Any]) -> bool:
    """Tell whether the server makes the values of a column."""
    if is_given_by_database(column) or column.identity is not None:
        return True
    default = column.server_default
    if isinstance(default, sa.DefaultClause) and "nextval(" in str(default.arg):
        return True
    table = column.table
    if column is not table.autoincrement_column or column.foreign_keys:
        return False
    # SQLite: only INTEGER PRIMARY KEY is the number of the row
    return column.autoincrement is True or type(column.type) is sa.INTEGER


def checks_of(connection: Connection, metadata: sa.MetaData) -> dict[str, list[str]]:
    """Return the conditions of the CHECKs of all tables, by the tables' keys."""
    checks = {
        table.key: [
            str(one.sqltext) for one in table.constraints if isinstance(one, sa.CheckConstraint)
        ]
        for table in metadata.tables.values()
    }
    if getattr(connection.dialect, "is_mariadb", False):
        # what stands beside a column is not reflected there
        for table, condition in connection.execute(_MARIADB_CHECKS):
            checks.setdefault(table, []).append(condition)
    return checks


def in_order(tables: Iterable[sa.Table]) -> list[sa.Table]:
    """Return tables so that each comes after those that it refers to, as far as possible.

    In a circle the table comes first whose references may be NULL.
    """
    left = list(tables)
    ordered: list[sa.Table] = []
    while left:
        all_there = _ready(left, needed_only=False)
        found = (all_there or _ready(left, needed_only=True) or left)[0]
        left.remove(found)
        ordered.append(found)
    return ordered


def _ready(tables: Collection[sa.Table], *, needed_only: bool) -> list[sa.Table]:
    """Return the first table whose parents are not among those that wait."""
    waiting = set(tables)
    for table in tables:
        parents = {
            key.referred_table
            for key in table.foreign_key_constraints
            if not (needed_only and may_be_null(key))
        }
        if not (parents - {table}) & waiting:
            return [table]
    return []


def is_nullable(column: sa.Column[Any]) -> bool:
    """Tell whether a column may be NULL; SQLite says so of keys, too."""
    return bool(column.nullable) and not column.primary_key


def may_be_null(key: sa.ForeignKeyConstraint) -> bool:
    """Tell whether a row can do without a reference."""
    return any(is_nullable(column) for column in key.columns)
