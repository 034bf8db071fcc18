"""The session that every face of the application hands out."""

from __future__ import annotations

import logging
import re
from types import TracebackType
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.orm import Session as SQLAlchemySession
from sqlalchemy.sql.elements import TextClause

from qapla_db.backends import Backend
from qapla_db.errors import ReadOnly

__all__ = ["Session"]

log = logging.getLogger("qapla_db")

_WRITES = re.compile(r"\s*(insert|update|delete|merge|replace|truncate)\b", re.IGNORECASE)


class Session(SQLAlchemySession):
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
        self, bind: Engine, *, database: str, backend: Backend, read_only: bool, **options: Any
    ) -> None:
        self.database_name = database
        self.read_only = read_only
        self._backend = backend
        self._used: list[Connection] = []
        self._written: set[SessionTransaction] = set()
        # a closed session must stay closed: used again it would leak its connection
        super().__init__(bind, **{"close_resets_only": False, **options})

    def __repr__(self) -> str:
        kind = "read-only session" if self.read_only else "session"
        state = "in a transaction" if self.in_transaction() else "idle"
        return f"<{kind} of {self.database_name!r}, {state}>"

    @property
    def has_uncommitted(self) -> bool:
        """Whether the session holds changes, flushed or not, that no commit has stored."""
        return bool(
            self._written or self.new or self.deleted or any(map(self.is_modified, self.dirty))
        )

    def abandon(self) -> None:
        """Roll back and close, whatever state the session is in; nothing is raised.

        A statement that still runs is cancelled. A connection that cannot be
        cleaned is thrown away instead of going back to the pool. What goes wrong
        here is logged, so that the error which ended the scope stays visible.
        """
        try:
            if self._stop_statements():
                self.invalidate()
            else:
                self.close()
        except Exception:
            log.warning(
                "the rollback of a session of %r failed; its connection is thrown away",
                self.database_name,
                exc_info=True,
            )
            try:
                self.invalidate()
            except Exception:
                log.warning("a connection could not be thrown away", exc_info=True)

    def _stop_statements(self) -> bool:
        broken = False
        for connection in self._used:
            if not connection.closed and not connection.invalidated:
                broken = self._backend.stop_statement(connection) or broken
        return broken

    def __exit__(
        self,
        type_: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abandon()

    def _refuse(self, what: str) -> None:
        raise ReadOnly(
            f"this session of {self.database_name!r} is read-only and cannot {what}; "
            "open it without read_only=True to write"
        )


def _flushing(session: SQLAlchemySession, context: object, instances: object) -> None:
    assert isinstance(session, Session)
    if session.read_only:
        names = {type(one).__name__ for one in (*session.new, *session.dirty, *session.deleted)}
        session._refuse(f"store {', '.join(sorted(names))}")
    _mark(session)


def _executing(state: ORMExecuteState) -> None:
    if state.is_select:
        return
    writes = state.is_insert or state.is_update or state.is_delete
    if not writes and isinstance(state.statement, TextClause):
        writes = _WRITES.match(state.statement.text) is not None
    if not writes:
        return
    session = state.session
    assert isinstance(session, Session)
    if session.read_only:
        session._refuse("run a statement that writes")
    _mark(session)


def _mark(session: Session) -> None:
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None:
        session._written.add(transaction)


def _began(
    session: SQLAlchemySession, transaction: SessionTransaction, connection: Connection
) -> None:
    assert isinstance(session, Session)
    session._used.append(connection)


def _rolled_back(session: SQLAlchemySession, previous: SessionTransaction) -> None:
    assert isinstance(session, Session)
    session._written.discard(previous)


def _ended(session: SQLAlchemySession, transaction: SessionTransaction) -> None:
    assert isinstance(session, Session)
    if transaction in session._written:
        session._written.discard(transaction)
        if transaction.nested and transaction.parent is not None:
            session._written.add(transaction.parent)
    if transaction.parent is None:
        session._used.clear()


event.listen(Session, "before_flush", _flushing)
event.listen(Session, "do_orm_execute", _executing)
event.listen(Session, "after_begin", _began)
event.listen(Session, "after_soft_rollback", _rolled_back)
event.listen(Session, "after_transaction_end", _ended)
