"""A savepoint under which code of the caller's runs, which may not end the transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction

from qapla_db.errors import Misuse

__all__ = ["Steady", "check_transaction", "steady"]


_STATEMENTS = ("RELEASE SAVEPOINT sa_savepoint_", "ROLLBACK TO SAVEPOINT sa_savepoint_")


class Steady:
    """The savepoint, as long as it is there.

    :ivar rows: how many rows were read and stored under it.
    """

    def __init__(self, session: Session, savepoint: SessionTransaction) -> None:
        self.rows = 0
        self._committed = 0
        self._session = session
        self._savepoint = savepoint

    def check(self, cause: Exception | None = None) -> None:
        """Raise Misuse where the savepoint is gone with its transaction."""
        found = self._session.get_nested_transaction()
        while found is not None:
            if found is self._savepoint:
                return
            found = found.parent
        left = f"the first {self._committed} are committed" if self._committed else "none is stored"
        raise Misuse(
            "the iterable of the rows, or progress=, has ended the session's transaction while "
            f"they were being stored; {left}. Commit when the call is over, or make a call for "
            "each part of the rows"
        ) from cause

    def heed_commit(self, session: Session) -> None:
        """Remember what a commit of the whole transaction has stored."""
        if not session.in_nested_transaction():
            self._committed = self.rows


def check_transaction(connection: Connection) -> None:
    """Raise Misuse where a statement has ended the transaction, as far as the driver tells.

    On SQLite what is stored next would be committed at once.
    """
    if getattr(connection.connection.driver_connection, "in_transaction", True) is False:
        raise _ended_by_sql()


def _ended_by_sql() -> Misuse:
    return Misuse(
        "the iterable of the rows, or progress=, has ended the session's transaction with a "
        "statement of its own (COMMIT or ROLLBACK) while they were being stored; what was stored "
        "before it is committed or lost accordingly. Commit when the call is over"
    )


def _is_missing(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a savepoint of ours was not there any more."""
    if not (error.statement or "").startswith(_STATEMENTS):
        return False
    arguments = getattr(error.orig, "args", ())
    return (
        getattr(error.orig, "sqlstate", None) in ("3B001", "25P01")
        or arguments[:1] == (1305,)
        or "no such savepoint" in str(error.orig)
    )


@contextmanager
def steady(session: Session) -> Iterator[Steady]:
    """Begin a savepoint, and roll it back after an error.

    :raises Misuse: its transaction has ended meanwhile; it says what that has left behind.
    """
    savepoint = session.begin_nested()
    try:
        with _heeded(session, savepoint) as found:
            yield found
    except sa.exc.DBAPIError as error:
        if not _is_missing(error):
            raise
        raise _ended_by_sql() from error


@contextmanager
def _heeded(session: Session, savepoint: SessionTransaction) -> Iterator[Steady]:
    with savepoint:
        found = Steady(session, savepoint)
        sa.event.listen(session, "after_commit", found.heed_commit)
        try:
            yield found
            found.check()
        except Misuse:
            raise
        except Exception as error:
            found.check(error)
            raise
        finally:
            sa.event.remove(session, "after_commit", found.heed_commit)
