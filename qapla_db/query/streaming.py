"""Reading many rows with constant memory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session

from qapla_db.errors import InvalidArgument
from qapla_db.query.targets import select_of, session_of

__all__ = ["stream"]

M = TypeVar("M")


@overload
def stream(
    session: Session | scoped_session[Any], target: type[M], *, chunk: int = ...
) -> Generator[M, None, None]: ...


@overload
def stream(
    session: Session | scoped_session[Any], target: Any, *, chunk: int = ...
) -> Generator[Any, None, None]: ...


def stream(
    session: Session | scoped_session[Any], target: Any, *, chunk: int = 1000
) -> Generator[Any, None, None]:
    """Yield the objects or rows of a select with constant memory.

    They come from a cursor at the server, which is closed with the iterator:
    also one that is given up early, by ``close()`` or ``contextlib.closing``.
    Until then the transaction must not end, and on MariaDB and MySQL the
    session can run no other statement. In a test sandbox the rows are fetched
    at once.

    :param session: pending objects are flushed first, as before any query.
    :param target: a mapped class, or a select; one of several columns yields rows.
    :param chunk: number of rows fetched at a time.
    :raises InvalidArgument: ``chunk`` is no number of rows.
    :raises Misuse: the target is neither.
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InvalidArgument(f"chunk is a number of rows from 1 on, not {chunk!r}")
    return _stream(session_of(session), select_of(target), chunk)


def _stream(session: Session, statement: sa.Select[Any], chunk: int) -> Generator[Any, None, None]:
    result = session.execute(statement, execution_options={"yield_per": chunk})
    try:
        yield from result.scalars() if len(statement.column_descriptions) == 1 else result
    finally:
        result.close()
