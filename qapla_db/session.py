"""The session that every face of the application hands out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import Select, TextualSelect

from qapla_db.backends import Backend
from qapla_db.backends.commits import check_commit
from qapla_db.backends.states import is_autocommit, is_sandboxed
from qapla_db.errors import ReadOnlyError
from qapla_db.query.methods import QueryMethods
from qapla_db.query.sql import Query
from qapla_db.query.texts import text_writes

__all__ = ["Session"]

log = logging.getLogger("qapla_db")

MANY = 8
"""Connections and transactions that a session remembers before it looks which are over."""


class Session(QueryMethods, SQLAlchemySession):  # type: ignore[misc]  # query() is of ours
    """A SQLAlchemy session of a named database.

    It is closed by the scope that opened it. Used as a context manager it
    closes itself at the end, rolls back on an error and never commits.

    :param bind: the engine.
    :param database: the database's name.
    :param backend: what knows how to stop a running statement.
    :param read_only: refuse to write, here and at the server.
    :param options: keywords of :class:`sqlalchemy.orm.Session`.
    """

    def __init__(
        self,
        bind: Engine,
        *,
        database: str,
        backend: Backend,
        read_only: bool,
        # a closed session must stay closed: used again it would leak its connection
        close_resets_only: bool = False,
        **options: Any,
    ) -> None:
        self.database_name = database
        self.read_only = read_only
        self._backend = backend
        self._used: set[Connection] = set()
        self._written: set[SessionTransaction] = set()
        options.setdefault("query_cls", Query)
        super().__init__(bind, close_resets_only=close_resets_only, **options)

    def __repr__(self) -> str:
        kind = "read-only session" if self.read_only else "session"
        state = "in a transaction" if self.in_transaction() else "idle"
        return f"<{kind} of {self.database_name!r}, {state}>"

    @property
    def has_uncommitted(self) -> bool:
        """Whether the session holds changes, flushed or not, that no commit has stored."""
        if self._written and any(one in self._written for one in self._transactions()):
            return True
        # the usual case, at a tenth of the cost of the question behind it
        return not self._is_clean() and self._has_unflushed()

    def _has_unflushed(self) -> bool:
        return bool(self.new or self.deleted or any(map(self.is_modified, self.dirty)))

    def _transactions(self) -> Iterator[SessionTransaction]:
        """Yield the innermost transaction and those around it."""
        transaction = self.get_nested_transaction() or self.get_transaction()
        while transaction is not None:
            yield transaction
            transaction = transaction.parent

    def commit(self) -> None:
        """Flush and commit.

        :raises TransactionFailed: an error was caught that had ended the
            transaction at the server, which would not store it and not say so. The
            same is raised at the end of ``with session.begin():``.
        """
        if self.in_nested_transaction() or not self._is_clean():
            # the savepoint, or the flush, would meet the driver's error before the engine's guard
            for connection in self._used:
                check_commit(self._backend, self.database_name, connection)
        super().commit()

    def abandon(self) -> None:
        """Roll back and close, whatever state the session is in; nothing is raised.

        A statement that still runs is cancelled. A connection that cannot be
        cleaned is thrown away instead of going back to the pool. What goes wrong
        here is logged, so that the error which ended the scope stays visible.
        """
        used, broken = self._used, False
        try:
            if self._backend.is_server:
                for connection in used:
                    if not is_sandboxed(connection):  # there it may be another session's statement
                        broken = self._backend.stop_statement(connection) or broken
            if broken:
                self.invalidate()
            else:
                self.close()
        except BaseException as error:
            log.warning(
                "the rollback of a session of %r failed; its connection is thrown away",
                self.database_name,
                exc_info=True,
            )
            for connection in used:
                _throw_away(connection)
            if not isinstance(error, Exception):
                raise  # the process or the greenlet is told to end

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    if not TYPE_CHECKING:  # the signatures are SQLAlchemy's
        # a do_orm_execute listener sees the same, and makes SQLAlchemy prepare everything twice

        def execute(self, statement, *args, **options):
            if type(statement) is not Select or statement._independent_ctes:
                self._watch(statement)
            return super().execute(statement, *args, **options)

        def scalar(self, statement, *args, **options):
            if type(statement) is not Select or statement._independent_ctes:
                self._watch(statement)
            return super().scalar(statement, *args, **options)

        def scalars(self, statement, *args, **options):
            if type(statement) is not Select or statement._independent_ctes:
                self._watch(statement)
            return super().scalars(statement, *args, **options)

    def bulk_save_objects(self, *args: Any, **options: Any) -> None:
        self._writes("store objects")
        super().bulk_save_objects(*args, **options)

    def bulk_insert_mappings(self, *args: Any, **options: Any) -> None:
        self._writes("store rows")
        super().bulk_insert_mappings(*args, **options)

    def bulk_update_mappings(self, *args: Any, **options: Any) -> None:
        self._writes("store rows")
        super().bulk_update_mappings(*args, **options)

    def _watch(self, statement: Any) -> None:
        if isinstance(statement, FromStatement | TextualSelect):
            statement = statement.element
        is_dml = getattr(statement, "is_dml", False)  # also of a lambda_stmt()
        if is_dml or any(one.element.is_dml for one in getattr(statement, "_independent_ctes", ())):
            self._writes("insert, update or delete")
        elif isinstance(statement, ExecutableDDLElement):
            self._writes("change the schema")
        elif isinstance(statement, TextClause) and text_writes(
            # the server refuses what really writes in a read-only session
            statement.text,
            for_sure=self.read_only,
        ):
            self._writes("run a statement that writes")

    def _writes(self, what: str) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"this session of {self.database_name!r} is read-only and cannot {what}; "
                "open it without read_only=True to write"
            )
        if self.autobegin and not self.in_transaction():
            self.begin()
        if len(self._written) > MANY:
            self._written.intersection_update(self._transactions())
        self._written.update(islice(self._transactions(), 1))


def _flushing(session: Any, context: object, instances: object) -> None:
    if session._has_unflushed():
        names = {type(one).__name__ for one in (*session.new, *session.dirty, *session.deleted)}
        session._writes(f"store {', '.join(sorted(names))}")


def _began(session: Any, transaction: SessionTransaction, connection: Connection) -> None:
    used = session._used
    if len(used) > MANY:  # of a session that lives long, nearly all are closed
        used -= {one for one in used if one.closed}
    used.add(connection)
    if session.read_only and is_autocommit(connection):
        raise ReadOnlyError(
            f"this session of {session.database_name!r} is read-only, and no server keeps a "
            "connection in AUTOCOMMIT from writing; leave the isolation level as it is"
        )


def _throw_away(connection: Connection) -> None:
    try:
        if not connection.closed:
            connection.invalidate()
            connection.close()
    except Exception:
        log.warning("a connection could not be thrown away", exc_info=True)


def _committed(session: Any) -> None:
    savepoint = session.get_nested_transaction()
    if savepoint in session._written and savepoint.parent is not None:
        session._written.add(savepoint.parent)  # what it wrote is now its parent's


event.listen(Session, "before_flush", _flushing)
event.listen(Session, "after_begin", _began)
event.listen(Session, "after_commit", _committed)
