"""COPY of PostgreSQL, carried out as any other statement.

SQLAlchemy logs it, its listeners see it, errors are mapped and broken
connections thrown away, and a test sandbox counts it among the statements of
its transaction. Only the driver psycopg 3 can do it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect

__all__ = ["can_copy", "copy", "is_direct", "types_of"]

_DATA = "qapla_db_copy"
_prepared: WeakSet[Dialect] = WeakSet()
_lock = threading.Lock()


def can_copy(dialect: Dialect) -> bool:
    """Tell whether the driver has the means."""
    return (dialect.name, dialect.driver) == ("postgresql", "psycopg") and not dialect.is_async


def copy(
    connection: Connection,
    table: sa.Table,
    columns: Sequence[sa.Column[Any]],
    data: Iterable[Any],
    *,
    oids: Sequence[int] | None = None,
) -> int:
    """Copy rows into a table, and return how many it took.

    :param connection: of the driver psycopg.
    :param table: the table.
    :param columns: the columns that the data has.
    :param data: pieces of rows; it is asked for the next piece while the server works on the
        one before. A piece is bytes in the text format of COPY, or with ``oids`` an iterable
        of tuples.
    :param oids: the types of the columns; the rows then go in the binary format.
    """
    _prepare(connection.dialect)
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.quote(column.name) for column in columns)
    # nothing is interpolated by the driver, which would want a percent sign doubled
    form = "" if oids is None else " (FORMAT BINARY)"
    statement = f"COPY {_name(connection, table)} ({names}) FROM STDIN{form}".replace("%%", "%")
    job = _Job(data, oids)
    connection.exec_driver_sql(statement, execution_options={_DATA: job})
    return job.stored


def is_direct(connection: Connection, table: sa.Table) -> bool:
    """Tell whether COPY into a table does the same as INSERT.

    COPY knows no rules, and is refused by views and by row-level security.
    """
    query = sa.text(
        "SELECT relkind IN ('r', 'p', 'f') AND NOT relhasrules AND NOT row_security_active(oid) "
        "FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass)"
    )
    name = _name(connection, table).replace("%%", "%")
    return bool(connection.execute(query, {"name": name}).scalar())


def types_of(connection: Connection, table: sa.Table) -> dict[str, int]:
    """Return the types of a table's columns, by the columns' names, as the server has them."""
    query = sa.text(
        "SELECT attname, atttypid FROM pg_catalog.pg_attribute "
        "WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped"
    )
    name = _name(connection, table).replace("%%", "%")
    return {one.attname: one.atttypid for one in connection.execute(query, {"name": name})}


def _name(connection: Connection, table: sa.Table) -> str:
    preparer = connection.dialect.identifier_preparer
    schema = connection.schema_for_object(table)
    name = preparer.format_table(table, use_schema=False)
    return f"{preparer.quote_schema(schema)}.{name}" if schema else name


class _Job:
    def __init__(self, data: Iterable[Any], oids: Sequence[int] | None) -> None:
        self.data = data
        self.oids = oids
        self.stored = 0


class _CopyCursor:
    """The cursor that SQLAlchemy is given for a COPY: its ``execute`` sends the data along."""

    def __init__(self, cursor: Any, job: _Job) -> None:
        self._cursor = cursor
        self._job = job

    def execute(self, statement: str, parameters: object = None) -> None:
        with self._cursor.copy(statement) as target:
            if self._job.oids is None:
                for piece in self._job.data:
                    target.write(piece)
            else:
                target.set_types(self._job.oids)
                write = target.write_row
                for piece in self._job.data:
                    for row in piece:
                        write(row)
        self._job.stored = self._cursor.rowcount


def _prepare(dialect: Dialect) -> None:
    with _lock:
        if dialect not in _prepared:
            event.listen(dialect, "do_execute", _do_execute)
            _prepared.add(dialect)


def _do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    job = context.execution_options.get(_DATA)
    if job is None:
        return False
    context.dialect.do_execute(_CopyCursor(cursor, job), statement, parameters, context)
    return True
