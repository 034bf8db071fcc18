"""The steps of one migration run: announced, watched and, when one fails, explained."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext, MigrationStep
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect

from qapla_db.errors import MigrationError
from qapla_db.migrations.sqltext import as_written

__all__ = ["Plan", "Steps", "Undo", "at"]

Plan = Callable[[tuple[str, ...], MigrationContext], Iterable[MigrationStep]]

Undo = Literal["revision", "run", "nothing", "caller"]
"""What is rolled back when a revision fails; with "caller" its transaction decides."""

_WIDTH = 300
_QUERIES = ("select", "show", "describe", "set")


class Steps:
    """The steps of one run.

    :param name: the database's name.
    :param address: its URL without password.
    :param undo: what is rolled back when a revision fails.
    :param say: gets a line before each step.
    """

    def __init__(self, name: str, address: str, undo: Undo, say: Callable[[str], object]) -> None:
        self.name = name
        self.address = address
        self.undo = undo
        self.say = say
        self.count = 0
        self.heads: frozenset[str] = frozenset()
        """Where the version table must be, as far as the run has come."""
        self.running: MigrationStep | None = None
        self.committed = False
        """Whether the running step has committed something before its end."""
        self._stamped = False
        self._first: frozenset[str] = frozenset()
        self._before: frozenset[str] = frozenset()
        self._statements: list[str] = []
        self._dialect: Dialect | None = None

    # --- hooks of Alembic

    def announce(self, plan: Plan) -> Callable[..., Iterator[MigrationStep]]:
        """Wrap the function that plans the steps, so that each is announced as it begins."""

        def steps(heads: tuple[str, ...], context: MigrationContext) -> Iterator[MigrationStep]:
            self.heads = self._first = frozenset(heads)
            for step in plan(heads, context):
                self.running = step
                self.committed = self._stamped = False
                self._before = self.heads
                self._statements.clear()
                self.say(f"{self.name}: {described(step)}")
                yield step
                self.running = None
                self.count += 1

        return steps

    def applied(self, *, heads: Collection[str], **_: Any) -> None:
        """Alembic's hook ``on_version_apply``."""
        self.heads = frozenset(heads)
        self._stamped = True

    # --- hooks of SQLAlchemy

    @contextmanager
    def watching(self, connection: Connection) -> Iterator[None]:
        """Remember what is executed on a connection."""
        self._dialect = connection.dialect
        event.listen(connection, "after_cursor_execute", self._executed)
        event.listen(connection, "commit", self._commits)
        try:
            yield
        finally:
            event.remove(connection, "commit", self._commits)
            event.remove(connection, "after_cursor_execute", self._executed)

    def _executed(self, connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if not statement.lstrip().lower().startswith(_QUERIES):
            self._statements.append(_short(as_written(connection.dialect, statement)))

    def _commits(self, connection: Connection) -> None:
        self.committed = self.committed or not self._stamped

    # --- when one fails

    def failure(self, error: sa.exc.DBAPIError) -> MigrationError:
        """Return the error that says which revision failed, where, why and what is left."""
        where = f"the migration of the database {self.name!r} at {self.address} failed"
        if self.running is None:
            return MigrationError(
                f"{where} outside of a revision: {_reason(error)}. Check that the server lets the "
                "database's user have two connections and create the version table"
            )
        statement = ""
        if error.statement and self._dialect is not None:
            statement = f" Statement: {_short(as_written(self._dialect, error.statement))}."
        if self._stamped and error.connection_invalidated:
            after = "Whether it was committed is not known; ask for the current revision."
        else:
            after = self.aftermath()
        return MigrationError(
            f"{where} in {described(self.running)}{self._line(error)}: {_reason(error)}."
            f"{statement} {after}"
        )

    def aftermath(self) -> str:
        """Say what is left of a run whose current step has failed."""
        if self.undo == "caller":
            return "What is left is decided by the transaction of the caller's connection."
        if self.undo == "nothing":
            return self._leftovers()
        if self.committed:
            return (
                "The revision had committed a part of its work before (as an autocommit block "
                "does); look what is there, undo or finish it by hand, and run it again."
            )
        if self.undo == "run":
            return f"All of this run was rolled back; the database is at {at(self._first)}."
        return f"The revision was rolled back; the database is at {at(self._before)}."

    def _leftovers(self) -> str:
        start = f"This kind of database does not roll DDL back, and it is at {at(self._before)}. "
        if not self._statements:
            return f"{start}No statement of the revision had run."
        ran = "; ".join(f"[{number}] {one}" for number, one in enumerate(self._statements, 1))
        return (
            f"{start}Of the failed revision these statements had run: {ran}. Undo them by hand "
            "and run the migration again, or finish the revision by hand and stamp it."
        )

    def _line(self, error: BaseException) -> str:
        path = str(getattr(getattr(self.running, "revision", None), "path", ""))
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == path
        ]
        return f" ({path}, line {lines[-1]})" if lines else ""


def described(step: MigrationStep) -> str:
    """Return a step in a few words: ``3f2a -> 9c1b add elevation``."""
    # a stamp has no revision of its own
    words = "undo" if step.is_downgrade else ""
    if not hasattr(step, "revision"):
        words = "(stamped)"
    doc = " ".join((step.doc or "").split())
    line = f"{at(step.from_revisions_no_deps)} -> {at(step.to_revisions_no_deps)}"
    return " ".join(part for part in (line, words, doc) if part)


def at(heads: Collection[str]) -> str:
    """Return revisions for people."""
    return ", ".join(sorted(heads)) or "base"


def _short(statement: str) -> str:
    line = " ".join(statement.split())
    return f"{line[:_WIDTH]}..." if len(line) > _WIDTH else line


def _reason(error: sa.exc.DBAPIError) -> str:
    return " ".join(str(error.orig).split()).rstrip(".")
