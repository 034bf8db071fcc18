"""Reading many rows with constant memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.event.registry import _EventKey
from sqlalchemy.orm import ORMExecuteState, Session, scoped_session

from qapla_db.errors import InvalidArgument, Misuse
from qapla_db.query.targets import select_of, session_of

__all__ = ["stream"]

M = TypeVar("M")

_STREAM = "qapla_db_stream"
_SET_ASIDE = "WITH qapla_db_rows AS MATERIALIZED ({}) SELECT * FROM qapla_db_rows"


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
    Until then the transaction must not end, nor the savepoint be rolled back that
    it began in, and on MariaDB and MySQL the session can run no other statement,
    which would cut the rows off. What is written meanwhile is not among the rows: SQLite
    puts them aside first. In a test sandbox they are fetched at once.

    :param session: pending objects are flushed first, as before any query.
    :param target: a mapped class, or a select; one of several columns yields rows.
    :param chunk: number of rows fetched at a time.
    :raises InvalidArgument: ``chunk`` is no number of rows, or the select loads
        collections by joins.
    :raises Misuse: the target is neither; or, while it is read, the transaction has
        ended. On MariaDB and MySQL the other statement raises it.
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InvalidArgument(f"chunk is a number of rows from 1 on, not {chunk!r}")
    return _stream(session_of(session), select_of(target), chunk)


def _stream(session: Session, statement: sa.Select[Any], chunk: int) -> Generator[Any, None, None]:
    options = {"yield_per": chunk, _STREAM: True}
    try:
        with _set_aside(session):
            result = session.execute(statement, execution_options=options)
    except sa.exc.InvalidRequestError as error:
        if "yield_per" not in str(error):
            raise
        raise InvalidArgument(
            "a stream cannot load collections by joins or subqueries: the rows of one instance "
            "may be in two chunks; leave joinedload() and subqueryload() of collections out"
        ) from error
    try:
        with _guarded(result) as has_ended:
            for row in result.scalars() if len(statement.column_descriptions) == 1 else result:
                yield row
                if has_ended():
                    raise Misuse(
                        "the transaction of this stream has ended, and its cursor with it; commit "
                        "after the last row, read into a list, or write with a second session"
                    )
    finally:
        result.close()


@contextmanager
def _set_aside(session: Session) -> Iterator[None]:
    """Make SQLite read all rows into a table of its own, which is on the disk, before the first.

    Its cursor would meet what the session stores while it is read: without end, where each
    row makes another.
    """
    connections: list[Connection] = []

    def heed(state: ORMExecuteState) -> None:
        connection = session.connection(bind_arguments=dict(state.bind_arguments))
        if connection.dialect.name == "sqlite" and not connections:
            connections.append(connection)
            _key(connection, "before_cursor_execute", _materialised).listen(retval=True)

    sa.event.listen(session, "do_orm_execute", heed)
    try:
        yield
    finally:
        sa.event.remove(session, "do_orm_execute", heed)
        for connection in connections:
            _key(connection, "before_cursor_execute", _materialised).remove()


def _materialised(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    if context is not None and context.execution_options.get(_STREAM):
        statement = _SET_ASIDE.format(statement)
    return statement, parameters


def _key(connection: Connection, name: str, listener: Callable[..., Any]) -> _EventKey[Connection]:
    # what event.listen() makes; before SQLAlchemy 2.1 it refuses the connections of an engine
    # with execution options, as read-only sessions have
    return _EventKey(connection, name, listener, connection)


@contextmanager
def _guarded(result: sa.Result[Any]) -> Iterator[Callable[[], bool]]:
    """Close the result before the transaction ends, and keep the connection to itself if need be.

    A cursor that is closed later would be another transaction's to fail on.
    """
    cursor: Any = getattr(result, "raw", result)
    connection: Connection = cursor.connection
    savepoints = 0  # that began after the stream, and are there still
    ended = False

    def end(*_: Any) -> None:
        nonlocal ended
        ended = True
        result.close()

    def begin_savepoint(*_: Any) -> None:
        nonlocal savepoints
        savepoints += 1

    def release_savepoint(*_: Any) -> None:
        nonlocal savepoints
        savepoints = max(savepoints - 1, 0)

    def undo_savepoint(*_: Any) -> None:
        if savepoints:
            release_savepoint()
        else:
            end()

    def refuse(*_: Any) -> None:
        if not ended:
            raise Misuse(
                "the session reads a stream, and on MariaDB and MySQL another statement would cut "
                "it off (loading a relationship is one too); read into a list, close the stream "
                "first, or use a second session"
            )

    listeners: list[tuple[str, Callable[..., None]]] = [
        ("commit", end),
        ("rollback", end),
        ("savepoint", begin_savepoint),
        ("release_savepoint", release_savepoint),
        ("rollback_savepoint", undo_savepoint),
    ]
    if connection.dialect.name in ("mysql", "mariadb"):
        listeners.append(("before_cursor_execute", refuse))
    for name, listener in listeners:
        _key(connection, name, listener).listen()
    try:
        yield lambda: ended
    finally:
        for name, listener in listeners:
            _key(connection, name, listener).remove()
