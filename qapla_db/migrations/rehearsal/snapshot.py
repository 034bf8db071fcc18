"""The cells of tables, as they were at a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.migrations.rows.table import unique_sets

__all__ = ["Cells", "keys_of", "read_cells"]


@dataclass(frozen=True)
class Cells:
    """The cells of a table.

    :ivar columns: the names of its columns.
    :ivar raw: its rows in the order of its key: on PostgreSQL each as a text, which
        is quickly read and compared, elsewhere as the driver's tuples.
    """

    columns: tuple[str, ...]
    raw: Sequence[Any]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return its rows, cell by cell."""
        return [tuple(json.loads(row)) if isinstance(row, str) else tuple(row) for row in self.raw]


def read_cells(
    connection: Connection, table: sa.Table, columns: Sequence[str], key: Sequence[str]
) -> Cells:
    """Read columns of a table.

    :param key: columns to sort by, which tell rows apart.
    """
    # without their types: as they are stored, and no processing
    plain: list[sa.ColumnElement[Any]] = [sa.column(name) for name in columns]
    order: list[sa.ColumnElement[Any]] = [sa.column(name) for name in key]
    if not columns:
        count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        return Cells((), [()] * count)
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import array

        texts = array([sa.cast(column, sa.Text) for column in plain])
        row = sa.cast(sa.func.array_to_json(texts), sa.Text)
        query = sa.select(row).select_from(table).order_by(*order)
        return Cells(tuple(columns), connection.execute(query).scalars().all())
    query = sa.select(*plain).select_from(table).order_by(*order)
    return Cells(tuple(columns), [tuple(row) for row in connection.execute(query)])


def keys_of(table: sa.Table) -> list[tuple[str, ...]]:
    """Return the sets of columns that tell the rows of a table apart, the primary key first."""
    primary = tuple(column.name for column in table.primary_key.columns)
    others = [
        key
        for key in unique_sets(table)
        if key != primary and not any(table.columns[name].nullable for name in key)
    ]
    return ([primary] if primary else []) + others
