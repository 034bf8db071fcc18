"""The values of rows, column by column, as the driver takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from qapla_db.errors import InvalidRow
from qapla_db.query.rows import Part, Shape, check_no_expression

__all__ = ["Layout"]

_BOOLEANS = frozenset({bool, type(None)})
"""What the processor of a native boolean passes on as it is, after a look at each value."""


class Layout:
    """The columns that rows with certain fields are stored in, and their values.

    :ivar columns: those of the fields, and those that get a default here.
    :ivar calls: a default is made by a function, which may use the connection.
    :ivar left_out: the columns whose default is an SQL expression, to be given by a statement.

    :param shape: of the model.
    :param fields: of the rows.
    :param connection: where they are stored.
    """

    def __init__(self, shape: Shape, fields: tuple[str, ...], connection: Connection) -> None:
        self.fields = fields
        constants = [field for field in shape.constants if field not in fields]
        rest = [field for field in shape.columns if field not in (*fields, *constants)]
        defaults = [field for field in rest if _is_made_here(shape.columns[field])]
        self.names = (*fields, *constants, *defaults)
        self.columns = tuple(shape.columns[name] for name in self.names)
        self.left_out = tuple(
            column
            for column in map(shape.columns.__getitem__, rest)
            if column.default is not None and column.name not in {one.name for one in self.columns}
        )
        self._constants = [shape.constants[field] for field in constants]
        self._defaults: list[tuple[str, Any]] = [
            (field, shape.columns[field].default) for field in defaults
        ]
        self.calls = any(default.is_callable for _, default in self._defaults)
        dialect = connection.dialect
        self._processors = [_processor(column, dialect) for column in self.columns]
        self._checks = [
            processor
            for column, processor in zip(self.columns, self._processors, strict=True)
            if dialect.supports_native_boolean and type(column.type) is sa.Boolean
        ]
        self.is_plain = not any(_has_expression(column, dialect) for column in self.columns)
        self._context = _Context(self.columns, connection)

    def values(self, part: Part) -> list[Sequence[Any]]:
        """Return the values of rows with these fields, for each column.

        :raises InvalidRow: the type of a column refuses a value, or a default cannot be made.
        """
        rows = part.rows
        raw: list[Sequence[Any]] = [[row[field] for row in rows] for field in self.fields]
        for column, values, field in zip(self.columns, raw, self.fields, strict=False):
            check_no_expression(column, values, part.numbers, field)
        raw += [[value] * len(rows) for value in self._constants]
        for field, default in self._defaults:
            if default.is_scalar:
                raw.append([default.arg] * len(rows))
            else:
                raw.append(self._context.call(default.arg, raw, part.numbers, field))
        return [
            values if processor is None else self._processed(at, values, processor, part.numbers)
            for at, (values, processor) in enumerate(zip(raw, self._processors, strict=True))
        ]

    def _processed(
        self,
        at: int,
        values: Sequence[Any],
        processor: Callable[[Any], Any],
        numbers: Sequence[int],
    ) -> Sequence[Any]:
        if processor in self._checks and _BOOLEANS.issuperset(map(type, values)):
            return values
        done: list[Any] = []
        try:
            done.extend(map(processor, values))
        except Exception as error:
            # what came before the error is there already
            row, field = numbers[len(done)], self.names[at]
            raise InvalidRow(
                f"row {row}: the value of {field!r} cannot be stored: {error}", row=row, field=field
            ) from error
        return done


class _Context:
    """What a default that looks at its row gets: the part of an execution context it may use."""

    def __init__(self, columns: Sequence[sa.Column[Any]], connection: Connection) -> None:
        self.connection = self.root_connection = connection
        self.dialect = connection.dialect
        self.engine = connection.engine
        self._keys = [column.key for column in columns]
        self._values: Sequence[Sequence[Any]] = ()
        self._row = 0

    @property
    def current_parameters(self) -> dict[str, Any]:
        """The row, by the keys of its columns, as far as it is known."""
        return self.get_current_parameters()

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:
        """Return the row, by the keys of its columns, as far as it is known."""
        return {
            key: values[self._row] for key, values in zip(self._keys, self._values, strict=False)
        }

    def call(
        self,
        function: Callable[[Any], Any],
        values: Sequence[Sequence[Any]],
        numbers: Sequence[int],
        field: str,
    ) -> list[Any]:
        """Call a default for each of the rows with these numbers.

        :raises InvalidRow: it raises an error that is none of the database.
        """
        self._values = values
        made: list[Any] = []
        try:
            for row in range(len(numbers)):
                self._row = row
                made.append(function(self))
        except sa.exc.DBAPIError:
            raise
        except Exception as error:
            number = numbers[len(made)]
            raise InvalidRow(
                f"row {number}: the default of {field!r} cannot be made: {error}",
                row=number,
                field=field,
            ) from error
        return made


def _is_made_here(column: sa.Column[Any]) -> bool:
    default = column.default
    return default is not None and (default.is_scalar or default.is_callable)


def _processor(column: sa.Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return column.type.dialect_impl(dialect).bind_processor(dialect)


def _has_expression(column: sa.Column[Any], dialect: Dialect) -> bool:
    """Tell whether the type wraps its values into a function of SQL."""
    kind = column.type.dialect_impl(dialect)
    bound: Any = sa.bindparam("value", type_=kind)
    return kind.bind_expression(bound) is not None
