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

__all__ = ["can_copy", "copy", "is_direct"]

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
    data: Iterable[bytes],
) -> int:
    """Copy rows into a table, and return how many it took.

    :param connection: of the driver psycopg.
    :param table: the table.
    :param columns: the columns that the data has.
    :param data: rows in the text format of COPY, in pieces; it is asked for the next piece
        while the server works on the one before.
    """
    _prepare(connection.dialect)
    preparer = connection.dialect.identifier_preparer
    names = ", ".join(preparer.quote(column.name) for column in columns)
    # nothing is interpolated by the driver, which would want a percent sign doubled
    statement = f"COPY {_name(connection, table)} ({names}) FROM STDIN".replace("%%", "%")
    job = _Job(data)
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


def _name(connection: Connection, table: sa.Table) -> str:
    preparer = connection.dialect.identifier_preparer
    schema = connection.schema_for_object(table)
    name = preparer.format_table(table, use_schema=False)
    return f"{preparer.quote_schema(schema)}.{name}" if schema else name


class _Job:
    def __init__(self, data: Iterable[bytes]) -> None:
        self.data = data
        self.stored = 0


class _CopyCursor:
    """The cursor that SQLAlchemy is given for a COPY: its ``execute`` sends the data along."""

    def __init__(self, cursor: Any, job: _Job) -> None:
        self._cursor = cursor
        self._job = job

    def execute(self, statement: str, parameters: object = None) -> None:
        with self._cursor.copy(statement) as target:
            for piece in self._job.data:
                target.write(piece)
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
