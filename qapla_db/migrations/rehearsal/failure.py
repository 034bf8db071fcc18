"""Why a revision failed on rows, with a row that it failed on."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from qapla_db.migrations.rehearsal.names import TEMPORARY
from qapla_db.migrations.sqltext import as_written

__all__ = ["Failure", "orphans", "reason_of"]

_NAME = r'[\s("`]*(?:[\w$]+["`]?\.["`]?)?([\w$]+)'
_STATEMENT = re.compile(
    rf"(?:ALTER\s+TABLE(?:\s+IF\s+EXISTS)?(?:\s+ONLY)?|INSERT\s+INTO|UPDATE|DELETE\s+FROM"
    rf"|CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\bON){_NAME}",
    re.I | re.S,
)
_WIDTH = 60
_STATEMENT_WIDTH = 300


def reason_of(error: BaseException, dialect: Dialect) -> str:
    """Return what the server said, in a line."""
    cause = _database_error(error)
    if cause is None:
        return " ".join(str(error).split()) or type(error).__name__
    detail = getattr(getattr(cause.orig, "diag", None), "message_detail", None)
    said = " ".join(str(cause.orig).split())
    if detail and detail not in said:
        said = f"{said} {detail}"
    statement = " ".join(as_written(dialect, cause.statement or "").split())
    return f"{said}, in: {statement[:_STATEMENT_WIDTH]}" if statement else said


def _database_error(error: BaseException | None) -> sa.exc.StatementError | None:
    while error is not None:
        if isinstance(error, sa.exc.StatementError):
            return error
        error = error.__cause__ or error.__context__
    return None


class Failure:
    """A revision's error on rows.

    :param connection: in no failed transaction, of the database as the revision found it.
    :param metadata: its schema.
    """

    def __init__(self, connection: Connection, metadata: sa.MetaData) -> None:
        self._connection = connection
        self._metadata = metadata

    def table(self, error: BaseException) -> sa.Table | None:
        """Return the table that the failed statement was about."""
        cause = _database_error(error)
        if cause is None:
            return None
        diagnosis = getattr(cause.orig, "diag", None)
        match = _STATEMENT.search(cause.statement or "")
        for name in (getattr(diagnosis, "table_name", None), match and match[1]):
            wanted = str(name or "").removeprefix(TEMPORARY)
            for table in self._metadata.tables.values():
                if table.name == wanted:
                    return table
        return None

    def examples(self, error: BaseException) -> tuple[str, ...]:
        """Return a row that it failed on, as far as can be told, else one of the table."""
        table = self.table(error)
        if table is None:
            return ()
        cause = _database_error(error)
        detail = getattr(getattr(getattr(cause, "orig", None), "diag", None), "message_detail", "")
        key = re.match(r"Key \(([\w, ]+)\)=\((.*)\) ", str(detail or ""))
        query = sa.select(
            *(sa.cast(column, sa.String(200)).label(column.name) for column in table.columns)
        )
        if key:
            values = zip(key[1].split(", "), key[2].split(", "), strict=False)
            query = query.where(
                *(
                    sa.cast(table.columns[name], sa.String(200)) == value
                    for name, value in values
                    if name in table.columns
                )
            )
        try:
            row = self._connection.execute(query.limit(1)).mappings().first()
        except sa.exc.DBAPIError:  # the connection is gone, or a type cannot be shown
            return ()
        return (f"{table.name}: {_shown(dict(row))}",) if row else ()


def orphans(connection: Connection) -> tuple[str, ...]:
    """Return some rows of a SQLite database that refer to rows which do not exist."""
    found = []
    for table, number, parent, _ in connection.exec_driver_sql(
        "PRAGMA foreign_key_check"
    ).fetchmany(3):
        quoted = connection.dialect.identifier_preparer.quote(table)
        row = None
        if number is not None:
            query = f"SELECT * FROM {quoted} WHERE rowid = {int(number)}"  # noqa: S608
            row = connection.exec_driver_sql(query).mappings().first()
        found.append(f"{table}: {_shown(dict(row or {}))} refers to no row of {parent}")
    return tuple(found)


def _shown(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={'NULL' if value is None else str(value)[:_WIDTH]}" for name, value in row.items()
    )
