"""The guard of an engine's commits: none may succeed that the server turns into a rollback.

What the servers do about an error that was caught differs: PostgreSQL takes
nothing but a rollback afterwards and answers COMMIT with one, MySQL has rolled
everything back after a deadlock, SQLite after a full disk. With the last two
the rest of the transaction would be stored, and its beginning not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, RootTransaction

from qapla_db.backends.states import is_autocommit, is_sandboxed
from qapla_db.errors import TransactionFailed

if TYPE_CHECKING:
    from qapla_db.backends.base import Backend

__all__ = ["check_commit", "guard_commits"]

_rolled_back: WeakSet[RootTransaction] = WeakSet()


def check_commit(backend: Backend, label: str, connection: Connection) -> None:
    """Raise where the transaction of a connection can only be rolled back.

    :param label: the database's name, for the message.
    :raises TransactionFailed: a statement failed, and its error was caught.
    """
    if connection.closed or connection.invalidated:
        return  # SQLAlchemy says so
    if connection.get_transaction() not in _rolled_back:
        # in a sandbox a transaction is a savepoint, of whose state the server says nothing
        teller: Any = connection.engine.pool if is_sandboxed(connection) else backend
        if not teller.has_failed(connection):
            return
    raise TransactionFailed(
        f"nothing of this transaction of the database {label!r} can be committed: a statement "
        "in it failed, and its error was caught. Let what may fail run in 'with "
        "session.begin_nested():', or call rollback() and begin again"
    )


def guard_commits(engine: Engine, backend: Backend, label: str) -> None:
    """Let every commit on an engine, of whatever object, raise where it would store nothing.

    :param label: the database's name, for the message.
    """
    guard = _Guard(backend, label)
    event.listen(engine, "commit", guard.commit)
    event.listen(engine, "prepare_twophase", guard.prepare)
    event.listen(engine, "commit_twophase", guard.commit_twophase)
    event.listen(engine, "handle_error", guard.failed)


class _Guard:
    """The listeners of one engine."""

    def __init__(self, backend: Backend, label: str) -> None:
        self.backend = backend
        self.label = label

    def commit(self, connection: Connection) -> None:
        try:
            check_commit(self.backend, self.label, connection)
        except TransactionFailed:
            # SQLAlchemy takes the transaction for ended and would return the connection in it
            _roll_back(connection)
            raise

    def prepare(self, connection: Connection, xid: object) -> None:
        check_commit(self.backend, self.label, connection)

    def commit_twophase(self, connection: Connection, xid: object, is_prepared: bool) -> None:
        if not is_prepared:
            self.commit(connection)

    def failed(self, context: ExceptionContext) -> None:
        """After an error: see whether the server has rolled everything back."""
        connection = context.connection
        if connection is None or connection.invalidated or context.is_disconnect:
            return
        if context.statement is None and context.execution_context is None:
            return  # it is COMMIT or ROLLBACK that failed
        transaction = connection.get_transaction()
        if transaction is None or is_sandboxed(connection) or is_autocommit(connection):
            return
        try:
            if self.backend.has_rolled_back(connection, context.original_exception):
                _rolled_back.add(transaction)
                _begin_again(connection, self.backend)
        except connection.dialect.loaded_dbapi.Error:
            context.is_disconnect = True  # so that nothing more is run on it


def _begin_again(connection: Connection, backend: Backend) -> None:
    """Give what follows an error a transaction and savepoints, which can only be rolled back.

    So no statement is committed by itself, and a block around a savepoint ends
    with the error that ended the transaction.
    """
    savepoints = []
    nested = connection.get_nested_transaction()
    while nested is not None:
        if nested.is_active:
            savepoints.append(nested._savepoint)
        nested = nested._previous_nested
    quote = connection.dialect.identifier_preparer.quote
    statements = [f"SAVEPOINT {quote(name)}" for name in reversed(savepoints)]
    cursor = connection.connection.cursor()
    try:
        for statement in (*backend.begin_again, *statements):
            cursor.execute(statement)
    finally:
        cursor.close()


def _roll_back(connection: Connection) -> None:
    try:
        connection.dialect.do_rollback(connection.connection)
    except BaseException as error:
        connection.invalidate()
        if not isinstance(error, connection.dialect.loaded_dbapi.Error):
            raise
