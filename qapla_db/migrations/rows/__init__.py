"""Plausible rows for a schema as it stands in a database.

They come from the reflected schema, for models describe the newest one only.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.migrations.rows.limits import Limits, limits_of
from qapla_db.migrations.rows.schema import (
    checks_of,
    in_order,
    is_generated,
    is_nullable,
    may_be_null,
    reflect,
)
from qapla_db.migrations.rows.store import Store
from qapla_db.migrations.rows.table import Draw, Key, Row, unique_sets

__all__ = ["Filled", "TableRows", "fill", "reflect"]

_EVERY = 3
"""Of this many rows one gets a reference to a row of its own table."""


@dataclass(frozen=True)
class TableRows:
    """What became of the rows of a table.

    :param table: its name.
    :param stored: how many there are now that were not there before.
    :param refused: how many the database did not take.
    :param reason: why it did not take the first of them, or why there are none.
    :param unknown: columns that hold only NULL, since no values are known for their types.
    """

    table: str
    stored: int
    refused: int = 0
    reason: str | None = None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """What :func:`fill` has done, table by table in the order of their references."""

    tables: tuple[TableRows, ...]

    @property
    def stored(self) -> int:
        """How many rows were stored."""
        return sum(one.stored for one in self.tables)

    @property
    def refused(self) -> int:
        """How many rows the database did not take."""
        return sum(one.refused for one in self.tables)


def fill(
    connection: Connection,
    metadata: sa.MetaData,
    count: int = 100,
    *,
    seed: int = 0,
    skip: Collection[str] = (),
) -> Filled:
    """Store plausible rows in every table.

    References point to rows that exist, unique columns hold different values,
    about 15 % of what may be NULL is. Columns whose values the server makes
    are left to it. The same seed and schema give the same rows.

    :param connection: in a transaction, which the caller commits.
    :param metadata: the schema, as :func:`reflect` returns it.
    :param count: rows for each table; fewer where there are not as many different ones.
    :param seed: of the random numbers.
    :param skip: keys of tables to leave alone.
    """
    if connection.dialect.name == "postgresql":
        # what is deferred would be refused at the commit, and with it everything
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
    checks = checks_of(connection, metadata)
    tables = [table for table in metadata.tables.values() if table.key not in skip]
    done: set[sa.Table] = set()
    later: list[sa.ForeignKeyConstraint] = []
    filled = []
    for table in in_order(tables):
        limits = limits_of(checks.get(table.key, ()), [column.name for column in table.columns])
        postponed = [key for key in table.foreign_key_constraints if key.referred_table not in done]
        rng = random.Random(f"{seed} {table.key}")
        filled.append(_fill_table(connection, table, count, rng, limits, postponed))
        done.add(table)
        later += sorted(postponed, key=lambda key: tuple(key.column_keys))
    for key in later:
        if may_be_null(key) and key.referred_table in done:
            _refer_later(connection, key, random.Random(f"{seed} {key.table.key}"))
    return Filled(tuple(filled))


def _fill_table(
    connection: Connection,
    table: sa.Table,
    count: int,
    rng: random.Random,
    limits: dict[str, Limits],
    later: Sequence[sa.ForeignKeyConstraint],
) -> TableRows:
    draw = Draw(table, rng, limits, later)
    if draw.without:
        what = ", ".join(f"{column.name} ({column.type!r})" for column in draw.without)
        return TableRows(table.key, 0, count, f"no values are known for {what}")
    parents = {key: _values(connection, _referred(key)) for key in draw.references}
    taken: dict[Key, list[Row]] = {}
    if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
        for names in unique_sets(table):
            taken[names] = _values(connection, [table.columns[name] for name in names])
    store = Store(connection, table, draw.columns)
    store.store(draw.rows(count, parents, taken))
    _advance(connection, table, [column for column in draw.columns if is_generated(column)])
    return TableRows(table.key, store.stored, store.refused, store.reason, draw.unknown)


def _referred(key: sa.ForeignKeyConstraint) -> list[sa.Column[Any]]:
    by_name = {element.parent.name: element.column for element in key.elements}
    return [by_name[column.name] for column in key.columns]


def _values(connection: Connection, columns: Sequence[sa.Column[Any]]) -> list[Row]:
    """Return the values of columns that are not NULL, in an order of their own."""
    query = sa.select(*columns).where(*(column.is_not(None) for column in columns))
    return [tuple(row) for row in connection.execute(query.distinct().order_by(*columns))]


def _advance(connection: Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]) -> None:
    """Let what numbers a table go on behind the numbers that were given."""
    if connection.dialect.name != "postgresql":
        return
    name = connection.dialect.identifier_preparer.format_table(table)
    for column in columns:
        sequence = sa.func.pg_get_serial_sequence(name, column.name)
        query = sa.select(sa.func.setval(sequence, sa.func.max(column))).select_from(table)
        connection.execute(query)


def _refer_later(connection: Connection, key: sa.ForeignKeyConstraint, rng: random.Random) -> None:
    """Give some rows a reference to a row that was not there when they were stored."""
    table, primary = key.table, list(key.table.primary_key.columns)
    if not primary:
        return
    rows, parents = _values(connection, primary), _values(connection, _referred(key))
    is_own = key.referred_table is table
    names = [column.name for column in key.columns]
    is_unique = any(set(one) <= set(names) for one in unique_sets(table))
    changes = []
    for at in range(1, len(rows), _EVERY):
        # within a table always to a row before, so that there is no circle
        limit = min(at, len(parents)) if is_own else len(parents)
        if not limit or (is_unique and at >= len(parents)):
            continue
        parent = parents[at - 1] if is_unique else parents[rng.randrange(limit)]
        changes.append(
            {
                **{f"key_{number}": value for number, value in enumerate(rows[at])},
                **{f"new_{number}": value for number, value in enumerate(parent)},
            }
        )
    if not changes:
        return
    statement = table.update().values(
        {
            column.name: sa.bindparam(f"new_{number}")
            for number, column in enumerate(key.columns)
            if is_nullable(column) or len(names) == 1
        }
    )
    statement = statement.where(
        *(column == sa.bindparam(f"key_{number}") for number, column in enumerate(primary))
    )
    try:
        with connection.begin_nested():
            connection.execute(statement, changes)
    except sa.exc.DBAPIError:
        pass  # a CHECK or a trigger wants it otherwise; the rows do without
