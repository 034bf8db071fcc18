"""Storing the drawn rows: all at once, and where the database refuses one, around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.backends.copying import can_copy, copy, is_direct
from qapla_db.backends.copytext import CopyText
from qapla_db.migrations.rows.table import Row

__all__ = ["Store"]

_WORTH_COPYING = 2
"""Rows; and a COPY that is refused leaves no line of the driver's log, as a pipeline does."""
_HOPELESS = 200
"""Rows refused with none taken, after which a table is given up."""


class Store:
    """Stores rows of a table.

    :param connection: in a transaction.
    :param table: the table.
    :param columns: what the rows have, in this order.
    """

    def __init__(
        self, connection: Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]
    ) -> None:
        self.stored = 0
        self.refused = 0
        self.reason: str | None = None
        """Why the first one was refused."""
        self._connection = connection
        self._table = table
        self._columns = columns
        self._copies = bool(columns) and can_copy(connection.dialect)
        self._copies = self._copies and is_direct(connection, table)

    def store(self, rows: Sequence[Row]) -> None:
        """Store what the database takes; the others are counted."""
        if not rows:
            return
        if not self.stored and self.refused >= _HOPELESS:
            self.refused += len(rows)
            return
        try:
            with self._connection.begin_nested():
                self._insert(rows)
        except (sa.exc.DBAPIError, sa.exc.StatementError) as error:
            self._divide(rows, error)
        else:
            self.stored += len(rows)

    def _divide(self, rows: Sequence[Row], error: sa.exc.StatementError) -> None:
        if len(rows) > 1:
            middle = len(rows) // 2
            self.store(rows[:middle])
            self.store(rows[middle:])
            return
        self.refused += 1
        self.reason = self.reason or " ".join(str(error.orig).split())

    def _insert(self, rows: Sequence[Row]) -> None:
        if self._copies and len(rows) >= _WORTH_COPYING:
            self._copy(rows)
            return
        names = [column.name for column in self._columns]
        if not names:
            for _ in rows:
                self._connection.execute(self._table.insert().values())
            return
        given = [dict(zip(names, row, strict=True)) for row in rows]
        self._connection.execute(self._table.insert(), given if len(given) > 1 else given[0])

    def _copy(self, rows: Sequence[Row]) -> None:
        columns = [
            self._bound(column, values)
            for column, values in zip(self._columns, zip(*rows, strict=True), strict=True)
        ]
        text = CopyText(self._connection, self._columns)
        copy(self._connection, self._table, self._columns, [text.piece(columns)])

    def _bound(self, column: sa.Column[Any], values: Sequence[Any]) -> Sequence[Any]:
        """Return the values of a column as the driver takes them; equal ones are one object."""
        dialect = self._connection.dialect
        bind = column.type.dialect_impl(dialect).bind_processor(dialect)
        if isinstance(column.type, sa.JSON):
            bind = _json
        if bind is None:
            return values
        known: dict[int, Any] = {}
        for value in values:
            if id(value) not in known:
                known[id(value)] = bind(value)
        return [known[id(value)] for value in values]


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
