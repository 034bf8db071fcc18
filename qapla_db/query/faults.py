"""Errors of stored rows, said in our words: which row, and which field where that is known."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from qapla_db.errors import Conflict, InvalidRow, QaplaError
from qapla_db.query.rows import Shape

__all__ = [
    "OtherKind",
    "blamed",
    "is_of_a_row",
    "key_of",
    "line_of",
    "refused_field",
    "said_of_row",
]

# PostgreSQL says these words in every language, and names tables and columns as they are
_LINE = re.compile(r"^COPY [^\n]*?, line (\d+)", re.MULTILINE)
_COPY_COLUMN = re.compile(r"^COPY [^\n]*, line \d+, column ([^\n:]+)", re.MULTILINE)
_COLUMN = re.compile(r"column [`'\"](?:\w+`\.)*`?([^`'\"]+)|failed: [^,]*\.(\w+)$", re.IGNORECASE)
_KEY = re.compile(r"[^(]*\(([^()]+)\)=\((.*)\)[^()]*", re.DOTALL)
_OF_A_KEY = frozenset({"23503", "23505", "23P01"})
"""The errors whose detail begins with a key; that of others shows what is in the row."""

_MYSQL_RULES = frozenset({3819, 4025})  # of MySQL and of MariaDB: CHECK
_SQLITE = (bytearray, bytes, datetime.date, float, memoryview, str, type(None))
_SQLITE_LARGEST = 2**63
_MYSQL_VALUES = frozenset({1264, 1265, 1292, 1366, 1406})


class OtherKind(Exception):
    """The row that has the key of one which was given is not of the model's class."""

    def __init__(self) -> None:
        super().__init__("the row that has its key is of another class in the same table")


def is_of_a_row(error: BaseException) -> bool:
    """Tell whether an error is the fault of the values in a row.

    Not of the statement, the connection, or who else uses the database.
    """
    if isinstance(error, sa.exc.DBAPIError):
        return _is_rule(error) or _is_value(error)
    kinds = (OtherKind, sa.exc.StatementError, OverflowError, UnicodeEncodeError)
    return isinstance(error, kinds)


def _is_rule(error: sa.exc.DBAPIError) -> bool:
    return isinstance(error, sa.exc.IntegrityError) or _code(error) in _MYSQL_RULES


def _is_value(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error, sa.exc.DataError) or _code(error) in _MYSQL_VALUES:
        return True
    # what the sqlite3 module says of a value that it cannot take
    refused = isinstance(error, sa.exc.InterfaceError | sa.exc.ProgrammingError)
    return refused and "binding parameter" in str(error.orig)


def _code(error: sa.exc.DBAPIError) -> object:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments else None


def said_of_row(
    error: Exception, shape: Shape, row: int | None, field: str | None = None
) -> QaplaError:
    """Return the error to raise for one that :func:`is_of_a_row`.

    :param field: the field at fault, where the error itself does not name it.
    """
    field = _field(error, shape) or field
    said = str(getattr(error, "orig", None) or error).strip()
    where = "a row" if row is None else f"row {row}"
    part = "" if field is None else f", field {field!r}"
    message = f"{where}{part}: {shape.model.__name__} could not be stored: {said}"
    is_rule = isinstance(error, sa.exc.DBAPIError) and _is_rule(error)
    if row is None or is_rule or isinstance(error, OtherKind):
        return Conflict(message, model=shape.model, row=row, field=field)
    return InvalidRow(message, row=row, field=field)


def _field(error: Exception, shape: Shape) -> str | None:
    fields = {column.name: field for column, field in shape.fields.items()}
    diagnostics = getattr(getattr(error, "orig", None), "diag", None)
    if diagnostics is not None:
        copied = _COPY_COLUMN.search(diagnostics.context or "")
        key = key_of(error)
        names = [diagnostics.column_name, copied and copied[1], key and key[0][0]]
        return next((fields[name] for name in names if name in fields), None)
    match = _COLUMN.search(str(getattr(error, "orig", error)))
    return fields.get(match[1] or match[2]) if match else None


def refused_field(
    error: Exception, shape: Shape, dialect: Dialect, row: Mapping[str, Any]
) -> str | None:
    """Return the field whose value was refused before it got to the database; None: it got there.

    :param error: one that :func:`is_of_a_row`.
    :param row: the values that it is about.
    """
    if isinstance(error, OtherKind):
        return None
    if isinstance(error, sa.exc.DBAPIError) and (_is_rule(error) or not _is_value(error)):
        return None
    return next((one for one in row if not _is_taken(shape.columns[one], dialect, row[one])), None)


def _is_taken(column: sa.Column[Any], dialect: Dialect, value: Any) -> bool:
    if isinstance(value, sa.ClauseElement):
        return True
    processor = column.type.dialect_impl(dialect).bind_processor(dialect)
    try:
        bound = value if processor is None else processor(value)
        if dialect.name != "sqlite":
            return True
        if isinstance(bound, str):
            bound.encode()
    except Exception:
        return False
    if isinstance(bound, int):
        return -_SQLITE_LARGEST <= bound < _SQLITE_LARGEST
    return isinstance(bound, _SQLITE)


def key_of(error: BaseException) -> tuple[list[str], str] | None:
    """Return the columns and the values of the key that PostgreSQL names in an error."""
    diagnostics = getattr(getattr(error, "orig", None), "diag", None)
    if getattr(diagnostics, "sqlstate", None) not in _OF_A_KEY:
        return None
    match = _KEY.fullmatch(getattr(diagnostics, "message_detail", None) or "")
    return ([name.strip('"') for name in match[1].split(", ")], match[2]) if match else None


def line_of(error: BaseException) -> int | None:
    """Return the line, counted from 0, that PostgreSQL names in an error of a COPY."""
    diagnostics = getattr(getattr(error, "orig", None), "diag", None)
    match = _LINE.search(getattr(diagnostics, "context", None) or "")
    return int(match[1]) - 1 if match else None


def blamed(
    connection: Connection,
    store: Callable[[Sequence[Mapping[str, Any]]], object],
    rows: Sequence[Mapping[str, Any]],
) -> tuple[int, Exception] | None:
    """Find the row that cannot be stored, by storing ever smaller parts.

    :param connection: in a transaction; what the rows left in it is for the caller to undo.
    :param store: stores rows.
    :param rows: some that could not be stored together.
    :returns: the index of the row and its error; None when each could be stored.
    """
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        if _error_of(connection, store, rows[low:middle]) is None:
            low = middle
        else:
            high = middle
    error = _error_of(connection, store, rows[low:high])
    return None if error is None else (low, error)


def _error_of(
    connection: Connection,
    store: Callable[[Sequence[Mapping[str, Any]]], object],
    rows: Sequence[Mapping[str, Any]],
) -> Exception | None:
    try:
        with connection.begin_nested():
            store(rows)
    except Exception as error:
        if not is_of_a_row(error):
            raise
        return error
    return None
