"""Rows stored through COPY: into the table itself, or by way of a temporary one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, groupby, pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.backends.copybinary import CopyBinary
from qapla_db.backends.copying import copy, is_direct, types_of
from qapla_db.backends.copytext import CopyText
from qapla_db.errors import InvalidRow
from qapla_db.query.conflicts import Rule
from qapla_db.query.faults import OtherKind
from qapla_db.query.inserts import conflict_clause, insert_of
from qapla_db.query.rows import Part, Shape
from qapla_db.query.values import Layout

__all__ = ["CopyStore", "Repeated"]

_NUMBER = "qapla_db_row"
_numbers = count(1)

_END = 2**63 - 1
_TWICE = "21000"  # ON CONFLICT DO UPDATE command cannot affect row a second time
_STATEMENTS = 20
"""With more of them for a chunk its rows are better stored one after another."""


class Repeated(Exception):
    """Among the rows keys occur so often that they are better stored one after another."""


class CopyStore:
    """Stores parts with the same fields by COPY.

    :param connection: of a driver that can.
    :param shape: of the model.
    :param rule: what happens to a row that meets one which exists.
    """

    def __init__(self, connection: Connection, shape: Shape, rule: Rule) -> None:
        self._connection = connection
        self._shape = shape
        self._rule = rule
        self._direct = rule.on_conflict == "error" and is_direct(connection, shape.table)
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._stages: dict[tuple[str, ...], _Stage] = {}
        self._targets: dict[tuple[str, ...], _Target] = {}
        self.target: _Target | None = None

    def takes(self, fields: tuple[str, ...]) -> bool:
        """Tell whether COPY stores the same as INSERT would."""
        layout = self._layout(fields)
        return bool(layout.columns) and layout.is_plain

    def store(self, fields: tuple[str, ...], parts: Iterator[Part]) -> int:
        """Store rows that have just these fields; return how many were inserted or updated.

        :raises Repeated: they are to be stored otherwise.
        """
        layout = self._layout(fields)
        if self._direct and not layout.left_out:
            if fields not in self._targets:
                table = self._shape.table
                self._targets[fields] = _Target(self._connection, table, layout.columns)
            self.target = self._targets[fields]
            return self.target.take(_with_values(layout, parts))
        if fields not in self._stages:
            self._stages[fields] = _Stage(self._connection, self._shape, layout, self._rule)
        stage = self._stages[fields]
        self.target = stage.target
        return stage.store(parts)

    @property
    def before(self) -> int:
        """Number of rows that the last call stored before the COPY which it was in at last."""
        return self.target.before if self.target is not None else 0

    def close(self) -> None:
        """Drop the temporary tables; a rollback does it by itself."""
        for stage in self._stages.values():
            stage.drop()

    def _layout(self, fields: tuple[str, ...]) -> Layout:
        if fields not in self._layouts:
            self._layouts[fields] = Layout(self._shape, fields, self._connection)
        return self._layouts[fields]


class _Target:
    """Columns of a table that rows are copied into, in binary as far as they fit."""

    def __init__(
        self, connection: Connection, table: sa.Table, columns: Sequence[sa.Column[Any]]
    ) -> None:
        self.before = 0
        self._connection = connection
        self._table = table
        self._columns = columns
        self._text = CopyText(connection, columns)
        oids = types_of(connection, table)
        self._binary = CopyBinary(connection, [oids.get(column.name, 0) for column in columns])

    def take(self, blocks: Iterator[tuple[list[Any], Part]]) -> int:
        """Copy the values of parts; return how many rows the table took."""
        self.before = taken = 0
        for fits, run in groupby(blocks, key=lambda block: self._binary.fits(block[0])):
            taken += self._copy(run, binary=fits)
        return taken

    def _copy(self, run: Iterator[tuple[list[Any], Part]], *, binary: bool) -> int:
        sent = 0

        def pieces() -> Iterator[Any]:
            nonlocal sent
            for values, part in run:
                sent += len(part.rows)
                yield zip(*values, strict=True) if binary else _piece(self._text, values, part)

        oids = self._binary.oids if binary else None
        taken = copy(self._connection, self._table, self._columns, pieces(), oids=oids)
        self.before += sent
        return taken


class _Stage:
    """A temporary table that rows are copied into, and the statement that takes them on."""

    def __init__(self, connection: Connection, shape: Shape, layout: Layout, rule: Rule) -> None:
        self._connection = connection
        self._layout = layout
        self._rule = rule
        self._is_filled = False
        columns = [sa.Column(column.name, column.type) for column in layout.columns]
        number = sa.Column(_NUMBER, sa.BigInteger)
        name = f"qapla_db_rows_{next(_numbers)}"
        self._table = sa.Table(name, sa.MetaData(), *columns, number)
        source = sa.select(*layout.columns, sa.literal_column("0::bigint").label(_NUMBER))
        translated = connection.get_execution_options().get("schema_translate_map")
        shown = source.compile(
            connection,
            schema_translate_map=translated,
            render_schema_translate=bool(translated),
        )
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {shown} WITH NO DATA"
        )
        self.target = _Target(connection, self._table, [*columns, number])
        self._into = shape.table
        self._given = [shape.columns[field] for field in layout.fields]

    def store(self, parts: Iterator[Part]) -> int:
        if self._is_filled:
            self._connection.exec_driver_sql(f"TRUNCATE {self._table.name}")
        self._is_filled = True
        taken = self.target.take(
            ([*values, list(part.numbers)], part)
            for values, part in _with_values(self._layout, parts)
        )
        if self._rule.on_conflict != "update":
            return self._take_on(0, _END)
        if self._take_on_by_key() < taken and self._rule.kind is not None:
            raise OtherKind
        # every row is inserted or changes another, also where a later one changes it again
        return taken

    def drop(self) -> None:
        self._connection.exec_driver_sql(f"DROP TABLE {self._table.name}")

    def _take_on_by_key(self) -> int:
        """Let the table take the rows in their order, with few statements.

        One statement cannot change a row twice, and the server finds that out at no cost.

        :raises Repeated: it takes more.
        """
        taken = self._tried([0, _END])
        if taken is None:
            bounds = self._bounds()
            taken = self._tried([0, *bounds, _END]) if len(bounds) < _STATEMENTS else None
        if taken is None:
            raise Repeated
        return taken

    def _tried(self, bounds: Sequence[int]) -> int | None:
        """Take on rows with a statement between bounds; None, and nothing: one has a key twice."""
        try:
            with self._connection.begin_nested():
                return sum(self._take_on(start, end) for start, end in pairwise(bounds))
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _TWICE:
                raise
        return None

    def _take_on(self, start: int, end: int) -> int:
        number = self._table.columns[_NUMBER]
        rows = sa.select(*(column for column in self._table.columns if column is not number))
        rows = rows.where(number >= start, number < end).order_by(number)
        insert = insert_of("postgresql", self._into).from_select(
            [column.key for column in self._layout.columns], rows
        )
        statement = conflict_clause(insert, self._rule, self._given)
        options = {"preserve_rowcount": True}
        return self._connection.execute(statement, execution_options=options).rowcount

    def _bounds(self) -> list[int]:
        """Return the numbers of the rows before which one has to cut, to have no key twice."""
        assert self._rule.key is not None
        number = self._table.columns[_NUMBER]
        key = [self._table.columns[column.name] for column in self._rule.key]
        other = sa.func.lag(number).over(partition_by=key, order_by=number).label("other")
        # rows without a value in the key meet none
        pairs = sa.select(number, other).where(*(one.is_not(None) for one in key)).subquery()
        query = sa.select(pairs).where(pairs.columns.other.is_not(None))
        bounds, start = list[int](), 0
        for row, before in self._connection.execute(query.order_by(pairs.columns[_NUMBER])):
            if before >= start:
                start = row
                bounds.append(row)
        return bounds


def _with_values(layout: Layout, parts: Iterator[Part]) -> Iterator[tuple[list[Any], Part]]:
    made = ((layout.values(part), part) for part in parts)
    # a function that asks the database would wait for the COPY, which waits for its values
    return iter(list(made)) if layout.calls else made


def _piece(text: CopyText, values: list[Any], part: Part) -> bytes:
    try:
        return text.piece(values)
    except InvalidRow:
        raise
    except Exception:
        for at, number in enumerate(part.numbers):
            try:
                text.piece([column[at : at + 1] for column in values])
            except Exception as error:
                raise InvalidRow(f"row {number} cannot be stored: {error}", row=number) from error
        raise
