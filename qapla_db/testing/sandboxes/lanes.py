"""The transactions of a sandbox, in turns on one connection.

A *lane* is one transaction of the application. Its savepoint is set before its
first statement and stands for BEGIN; RELEASE stands for COMMIT and ROLLBACK TO
for ROLLBACK. Savepoints are a stack and transactions are not, hence the rules:

* a lane that wrote nothing *floats*: its savepoint is given up whenever that
  helps another lane, and set again, on top, before its next statement;
* what a lane wrote stays where it is. A commit below lanes that wrote waits
  for them; a rollback that undoes the work of others says so;
* a thread that wants to write waits for the lanes of other threads that write,
  and never for those of the thread that the test runs in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import ReferenceType

from sqlalchemy.engine import Connection

from qapla_db.errors import SandboxConflict, SandboxError
from qapla_db.testing.sandboxes.conflicts import SandboxWarning, conflict, tell, undone
from qapla_db.testing.sandboxes.pinned import PinnedConnection
from qapla_db.testing.sandboxes.savepoints import Lane, Savepoints
from qapla_db.testing.sandboxes.statements import Kind, Statement, parse, without_passwords
from qapla_db.testing.sandboxes.turns import Turns

__all__ = ["Checkout", "Lanes"]

log = logging.getLogger("qapla_db")


@dataclass(eq=False, slots=True)
class Checkout:
    """One connection that the sandbox's pool gave out, and its current transaction."""

    fairy: ReferenceType[Any] | None = None
    connection: ReferenceType[Connection] | None = None
    lane: Lane | None = None
    cursors: dict[int, object] = field(default_factory=dict)
    """Those of the driver that it gave out, and that are not SQLAlchemy's own."""

    def options(self) -> Mapping[str, Any]:
        """Return the execution options of the SQLAlchemy connection, if there is one."""
        connection = self.connection() if self.connection is not None else None
        return connection.get_execution_options() if connection is not None else {}


class Lanes:
    """The transactions on one pinned connection.

    :param savepoints: those on the connection.
    :param pinned: the connection, in its outer transaction.
    :param wait: seconds that a thread waits for the transaction of another.
    :param autocommit: connections of the engine commit each statement by themselves.
    """

    def __init__(
        self, savepoints: Savepoints, pinned: PinnedConnection, *, wait: float, autocommit: bool
    ) -> None:
        self.database = savepoints.database
        self.conflict: SandboxConflict | None = None
        self.was_reading = False
        self._savepoints = savepoints
        self._pinned = pinned
        self._turns = Turns(self.database, wait)
        self.turn = self._turns.condition
        self._autocommit = autocommit
        self._abandoned: deque[Lane] = deque()
        self._closed = False

    # --- what the application does

    def execute(
        self,
        checkout: Checkout,
        text: str,
        run: Callable[[str], None],
        parameters: object = None,
        cursor: object = None,
    ) -> None:
        """Run a statement of the application in its transaction.

        :param run: executes the text it is given.
        :param parameters: with which it does so.
        :param cursor: on which it does so.
        """
        with self.turn:
            checkout.cursors.pop(id(cursor), None)
            self._pinned.is_used_by(cursor)
            lane = self._lane(checkout)
            try:
                self._execute(lane, parse(text), text, run, parameters)
            except BaseException:
                if lane.autocommit and not self._closed:
                    checkout.lane = None
                    self._undo(lane)
                raise
            if lane.autocommit:
                checkout.lane = None
                self._commit(lane)

    def touch(self, checkout: Checkout) -> None:
        """Set the savepoint of a transaction for who uses the driver's cursors himself."""
        with self.turn:
            lane = self._lane(checkout)
            if not lane.lost and not lane.failed:
                self._savepoints.place(lane)

    def has_failed(self, checkout: Checkout) -> bool:
        """Tell whether the transaction of a connection takes nothing but a rollback."""
        with self.turn:
            self._settle()
            return checkout.lane is not None and checkout.lane.failed

    def commit(self, checkout: Checkout) -> None:
        """Commit the transaction of a connection."""
        with self.turn:
            self._settle()
            lane, checkout.lane = checkout.lane, None
            if lane is not None:
                self._commit(lane)
            elif checkout.cursors:
                self._savepoints.writes += 1  # by a cursor of the driver that was kept

    def rollback(self, checkout: Checkout) -> None:
        """Roll the transaction of a connection back."""
        with self.turn:
            self._settle()
            lane, checkout.lane = checkout.lane, None
            if lane is not None:
                tell(self._rollback(lane))

    def abandon(self, checkout: Checkout) -> None:
        """Roll back later what a connection left open.

        Called from wherever the garbage collector interrupts, so it runs nothing.
        """
        lane, checkout.lane = checkout.lane, None
        if lane is not None:
            self._abandoned.append(lane)

    def close(self) -> bool:
        """Roll everything back; nothing can be run any more.

        :returns: whether the outer transaction was intact.
        """
        self._closed = True
        self.turn.notify_all()
        self.was_reading = self._pinned.stop_reading()
        return self._pinned.end()

    def refuse(self) -> NoReturn:
        """Raise what the connections of a sandbox raise after its end."""
        raise SandboxError(
            f"the sandbox of the database {self.database!r} has ended, and with it a connection "
            "that was opened in it; close sessions and join threads before the test ends"
        )

    # --- beginnings

    def _lane(self, checkout: Checkout) -> Lane:
        self._settle()
        if checkout.lane is None:
            options = checkout.options()
            level = options.get("isolation_level")
            read_only = options.get("qapla_db_read_only") or options.get("postgresql_readonly")
            checkout.lane = Lane(
                cursors=checkout.cursors,
                read_only=bool(read_only),
                autocommit=self._autocommit if level is None else level == "AUTOCOMMIT",
            )
        return checkout.lane

    def _settle(self) -> None:
        if self._closed:
            self.refuse()
        self._turns.wait_for_rows(self._pinned)
        if self._closed:
            self.refuse()
        self._savepoints.settle()
        while self._abandoned:
            loss = self._rollback(self._abandoned.popleft())
            if loss is not None:
                log.warning("%s", loss)

    # --- statements

    def _execute(
        self,
        lane: Lane,
        statement: Statement,
        text: str,
        run: Callable[[str], None],
        parameters: object,
    ) -> None:
        kind = statement.kind
        if lane.lost:
            raise SandboxConflict(lane.lost)
        if lane.failed and kind is not Kind.ROLLBACK_TO:
            raise self._pinned.aborted()
        if not lane.read_only and (kind.takes_turns or self._pinned.one_at_a_time):
            self._turns.take(lane, self._settle)
        self._savepoints.place(lane)
        if kind.is_nesting:
            self._nest(lane, statement, text, run)
            return
        shield = self._shield(lane, kind)
        is_refused = lane.read_only and kind in (Kind.WRITE, Kind.DEFINE)
        if kind.may_write and not is_refused:
            self._savepoints.writes += 1
            lane.wrote = True
        lane.called = lane.called or statement.calls
        settings = self._pinned.settings_before(text, parameters)
        self._run(lane, kind, text, run, shield)
        lane.has_changed(settings)
        if shield is not None:
            self._pinned.release(shield)

    def _shield(self, lane: Lane, kind: Kind) -> str | None:
        """Below others that wrote: keep from them what a failure of the statement does."""
        others = self._savepoints.writers_above(lane)
        if not others:
            return None
        if kind.may_write:
            _overwrite(lane, others)
        if not self._pinned.failure_poisons:
            return None
        shield = self._savepoints.name()
        self._pinned.open(shield, read_only=False)
        return shield

    def _run(
        self,
        lane: Lane,
        kind: Kind,
        text: str,
        run: Callable[[str], None],
        shield: str | None = None,
    ) -> None:
        self._pinned.before(kind, read_only=lane.read_only)
        try:
            run(text)
        except BaseException:
            self._pinned.recover()
            if self._pinned.failed and shield is not None:
                self._pinned.undo(shield)
                lane.failed = True
            elif self._pinned.failed:
                self._savepoints.rewind(lane)
            raise
        finally:
            self._pinned.after(read_only=lane.read_only)
            if not self._pinned.lost and not self._pinned.in_transaction:
                # its first words say enough
                words = " ".join(without_passwords(text).split()[:3])
                self._savepoints.breaks(f"the statement {words!r}")

    def _nest(
        self, lane: Lane, statement: Statement, text: str, run: Callable[[str], None]
    ) -> None:
        """Run a savepoint statement of the application, under a name of ours."""
        kind = statement.kind
        names = [name for name, _ in lane.nested]
        known = statement.savepoint in names
        index = len(names) - 1 - names[::-1].index(statement.savepoint) if known else 0
        others = self._savepoints.writers_above(lane)
        if others and kind is Kind.RELEASE and known:
            del lane.nested[index:]  # ours stays: to release it would release theirs
            return
        if others:
            raise conflict(self.database, lane, others[-1], "used a savepoint after that")
        if kind is Kind.SAVEPOINT:
            ours = self._savepoints.name()
            self._run(lane, kind, f"SAVEPOINT {ours}", run)
            lane.nested.append((statement.savepoint, ours))
            return
        if not known:
            self._run(lane, kind, text, run)  # the server says what is wrong with it
            return
        ours = lane.nested[index][1]
        if kind is Kind.RELEASE:
            self._run(lane, kind, f"RELEASE SAVEPOINT {ours}", run)
            del lane.nested[index:]
            lane.swallowed = [(min(at, index), other) for at, other in lane.swallowed]
            return
        if lane.overwritten:
            what = "went back to a savepoint after that"
            raise conflict(self.database, lane, lane.overwritten, what)
        self._run(lane, kind, f"ROLLBACK TO SAVEPOINT {ours}", run)
        del lane.nested[index + 1 :]
        lane.failed = False
        tell(undone(self.database, lane, depth=index + 1))

    # --- ends

    def _commit(self, lane: Lane) -> None:
        savepoints = self._savepoints
        if lane.may_have_written and not lane.wrote:
            savepoints.writes += 1
            if lane.savepoint is not None:
                lane.wrote = True
                _overwrite(lane, savepoints.writers_above(lane))
        try:
            if lane.lost:
                raise SandboxConflict(lane.lost)
            if lane.savepoint is None:
                return
            if lane.failed:
                tell(self._undo(lane))  # as the server does
            elif not lane.wrote:
                savepoints.give_up(lane)
            elif savepoints.writers_above(lane):
                lane.committed = True
            else:
                savepoints.commit(lane)
        finally:
            self._turns.give_back(lane)
            self._restore(lane)
            savepoints.collapse()

    def _rollback(self, lane: Lane) -> SandboxConflict | SandboxWarning | None:
        """Roll back, where there is a transaction, and return what else that undid."""
        if lane.autocommit:
            self._commit(lane)  # what the driver's own cursors did
            return None
        return self._undo(lane)

    def _undo(self, lane: Lane) -> SandboxConflict | SandboxWarning | None:
        savepoints = self._savepoints
        try:
            if lane.savepoint is None:
                return None
            loss = self._loss(lane) if lane.wrote else None
            if lane.wrote:
                savepoints.undo(lane)
            elif lane.seen == savepoints.writes:
                savepoints.leave(lane)
            else:
                savepoints.give_up(lane)
            return loss
        finally:
            self._turns.give_back(lane)
            self._restore(lane)
            savepoints.collapse()

    def _restore(self, lane: Lane) -> None:
        """Set back what a transaction has set for itself, which no RELEASE does."""
        if lane.settings and not self._pinned.lost:
            self._pinned.restore(lane.settings)
        lane.settings.clear()

    def _loss(self, lane: Lane) -> SandboxConflict | SandboxWarning | None:
        """Tell what the rollback of a lane undoes beside its own work."""
        above = self._savepoints.writers_above(lane)
        if above:
            found = conflict(self.database, lane, above[-1], "was rolled back, which undid both")
            for other in above:
                other.lost = found.message
        elif lane.overwritten:
            what = "was rolled back, which undid later work of the other"
            found = conflict(self.database, lane, lane.overwritten, what)
        else:
            return undone(self.database, lane, depth=0)
        self.conflict = self.conflict or found
        return found


def _overwrite(lane: Lane, others: list[Lane]) -> None:
    for other in others:
        other.overwritten = str(lane)
