"""Statements for rows that are given as mappings, and whose fault it is when one fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper, Session

from qapla_db.errors import InvalidRow, QaplaError, UnknownField
from qapla_db.query.faults import blamed, is_of_a_row, refused_field, said_of_row
from qapla_db.query.rows import Row, Shape, check_no_expression
from qapla_db.query.targets import announce_write

__all__ = ["Batch", "Work", "batches", "check_row", "column_of", "expire", "run"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that follow each other and have the same fields.

    :ivar names: the fields, sorted.
    :ivar rows: the rows.
    :ivar start: the number of the first one, counted from 0.
    """

    names: list[str]
    rows: list[Row]
    start: int


@dataclass(frozen=True, slots=True)
class Work:
    """Rows, and what stores them.

    :ivar store: stores rows, and returns how many were matched.
    :ivar start: the number of the first row, counted from 0.
    """

    store: Callable[[Connection, Sequence[Row]], int]
    rows: Sequence[Row]
    start: int


def batches(
    mapper: Mapper[Any], rows: Sequence[Row], by: Sequence[str], *, changing: bool = False
) -> list[Batch]:
    """Bring rows into batches, in their order.

    :param by: the fields that every row has a value for.
    :param changing: a row needs other fields than these.
    :raises InvalidRow: a row is not so, or no mapping, or has an SQL expression.
    :raises UnknownField: a row has a field that is no column.
    """
    found: list[Batch] = []
    for number, row in enumerate(rows):
        check_row(mapper, row, number, by, changing=changing)
        names = sorted(row)
        if not found or found[-1].names != names:
            for name in names:
                column_of(mapper, name)
            found.append(Batch(names, [], number))
        found[-1].rows.append(row)
    for batch in found:
        numbers = range(batch.start, batch.start + len(batch.rows))
        for name in batch.names:
            values = [row[name] for row in batch.rows]
            check_no_expression(column_of(mapper, name), values, numbers, name)
    return found


def check_row(
    mapper: Mapper[Any], row: Row, number: int, by: Sequence[str], *, changing: bool = False
) -> None:
    """Raise InvalidRow where a row has no value for a field of the key, or is no mapping."""
    model = mapper.class_.__name__
    if not isinstance(row, Mapping):
        raise InvalidRow(f"row {number} is no mapping of field to value: {row!r}", row=number)
    for name in by:
        if row.get(name) is None:
            raise InvalidRow(
                f"row {number} has no value for {model}.{name}, and NULL is equal to nothing; "
                "give one",
                row=number,
                field=name,
            )
    if changing and len(row) == len(by):
        raise InvalidRow(f"row {number} has nothing to change in {model}", row=number)


def column_of(mapper: Mapper[Any], name: str) -> sa.Column[Any]:
    """Return the column of a field.

    :raises UnknownField: the model has no field of this name that is a column.
    """
    found = mapper.column_attrs.get(name)
    column = found.columns[0] if found is not None else None
    if not isinstance(column, sa.Column):
        raise UnknownField(mapper.class_, [name], sorted(mapper.column_attrs.keys()))
    return column


def run(session: Session, mapper: Mapper[Any], works: Sequence[Work]) -> int:
    """Store rows under a savepoint, and return how many were matched.

    :raises Conflict: a row breaks a rule of the database; it has the row's number.
    :raises InvalidRow: a row cannot be stored; it has the row's number.
    """
    matched = 0
    savepoint = session.begin_nested()  # an error of what is flushed here is the caller's own
    try:
        with savepoint:
            if works:
                announce_write(session, "store rows")
            for work in works:
                connection = session.connection(bind_arguments={"mapper": mapper})
                matched += work.store(connection, work.rows)
    except Exception as error:
        if not is_of_a_row(error):
            raise
        raise _told(session, mapper, works, error) from error
    return matched


def _told(
    session: Session, mapper: Mapper[Any], works: Sequence[Work], error: Exception
) -> QaplaError:
    """Find the row of an error by running it all again in parts, and undoing that."""
    shape = Shape(mapper.class_, exact=True)
    savepoint = session.begin_nested()
    try:
        connection = session.connection(bind_arguments={"mapper": mapper})
        for work in works:
            found = blamed(connection, partial(work.store, connection), work.rows)
            if found is not None:
                at, cause = found
                field = refused_field(cause, shape, connection.dialect, work.rows[at])
                return said_of_row(cause, shape, work.start + at, field)
    finally:
        savepoint.rollback()
    return said_of_row(error, shape, None)


def expire(session: Session, mapper: Mapper[Any]) -> None:
    """Make the session read again what may have changed behind its objects.

    Those of the other classes in the table too.
    """
    base = mapper.base_mapper.class_
    for instance in list(session.identity_map.values()):
        if isinstance(instance, base) and not session.is_modified(instance):
            session.expire(instance)
