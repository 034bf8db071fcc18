"""The savepoints on the connection of a sandbox, one stack for all transactions.

RELEASE and ROLLBACK TO take along every savepoint above theirs. A transaction
that wrote nothing loses nothing by that: its savepoint is set again, on top,
before its next statement.

Where several commands go to the server at once, a commit sets a savepoint for the
next transaction too, and the one of a transaction that only read is rolled back
to when the next one begins. Nobody may use the driver's own cursors then, for
what they do belongs to no savepoint that we know.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from qapla_db.errors import SandboxBroken
from qapla_db.testing.places import place
from qapla_db.testing.sandboxes.pinned import PinnedConnection

__all__ = ["REMEDY", "Lane", "Savepoints"]

REMEDY = "give this test real commits instead of the sandbox (@pytest.mark.real_commit)"


@dataclass(eq=False, slots=True)
class Lane:
    """One transaction of the application."""

    read_only: bool
    autocommit: bool
    origin: str = field(default_factory=place)
    thread: threading.Thread = field(default_factory=threading.current_thread)
    savepoint: str | None = None
    """Name of its savepoint, while it has one."""
    nested: list[tuple[str, str]] = field(default_factory=list)
    """The application's savepoints in it: (its name for it, ours)."""
    seen: int = 0
    """Number of writes by anybody when its savepoint was set."""
    wrote: bool = False
    holds: bool = False
    """Other threads that want to write wait for its end."""
    failed: bool = False
    """A statement failed, and the server takes nothing but a rollback."""
    committed: bool = False
    """Committed, and waits for lanes above it that wrote."""
    cursors: Mapping[int, object] = field(default_factory=dict)
    """Cursors of the driver that its connection gave out; they may have written."""
    called: bool = False
    """It has called a function, which may have written."""
    swallowed: list[tuple[int, str]] = field(default_factory=list)
    """Who committed inside it since it first wrote, and in how many of its savepoints."""
    overwritten: str = ""
    """Who, from below, wrote after it had written."""
    lost: str = ""
    """Why its work is gone."""
    settings: dict[str, str] = field(default_factory=dict)
    """What it has set for itself, as it was before."""

    def __str__(self) -> str:
        return f"{self.origin} in thread {self.thread.name!r}"

    def has_changed(self, settings: Mapping[str, str | None]) -> None:
        """Note what a statement of its own has set; None for what is to stay."""
        for name, before in settings.items():
            if before is None:
                self.settings.pop(name, None)
            else:
                self.settings.setdefault(name, before)

    @property
    def may_have_written(self) -> bool:
        return self.wrote or self.called or bool(self.cursors)

    @property
    def is_uncommitted(self) -> bool:
        return self.wrote and not self.committed


class Savepoints:
    """The stack of savepoints on a pinned connection.

    :param database: its name, for messages.
    :param pinned: the connection, in its outer transaction.
    :param is_repaired: the database is made anew where not everything could be undone.
    """

    def __init__(self, database: str, pinned: PinnedConnection, *, is_repaired: bool) -> None:
        self.database = database
        self._is_repaired = is_repaired
        self.broken: SandboxBroken | None = None
        self.writes = 0
        self._pinned = pinned
        self._stack: list[Lane] = []
        self._spare = pinned.spare
        self._left = ""
        self._numbers = itertools.count(1)

    # --- looking

    def writers_above(self, lane: Lane) -> list[Lane]:
        """Return the lanes with savepoints above that of a lane which wrote."""
        return [other for other in self._above(lane) if other.wrote]

    def _above(self, lane: Lane) -> list[Lane]:
        return self._stack[self._stack.index(lane) + 1 :]

    # --- the place of a lane

    def place(self, lane: Lane) -> None:
        """Put the savepoints of a lane where its next statement can run.

        That is on top, unless there are above it those of lanes that wrote.
        """
        if lane.savepoint is not None and not lane.wrote and lane.seen != self.writes:
            self.give_up(lane)
        if lane.savepoint is None:
            self._open(lane)
            return
        self._clear_top()
        above = self._above(lane)
        if above and not any(other.wrote for other in above):
            self.release(above[0])

    def give_up(self, lane: Lane) -> None:
        """Remove the savepoint of a lane that wrote nothing."""
        if any(other.may_have_written for other in self._above(lane)):
            # to release it would release theirs; it may stay where it is
            self._clear_top()
            self._stack.remove(lane)
            lane.savepoint = None
        else:
            self.release(lane)

    def _open(self, lane: Lane) -> None:
        # a read-only lane makes everything above it read-only
        read_only = next((other for other in self._stack if other.read_only), None)
        if read_only is not None:
            self.release(read_only)
        lane.savepoint = self._top(read_only=lane.read_only)
        lane.seen = self.writes
        self._stack.append(lane)
        for index, (name, _) in enumerate(lane.nested):
            ours = self.name()
            self._pinned.open(ours, read_only=False)
            lane.nested[index] = (name, ours)

    def _top(self, *, read_only: bool) -> str:
        """Return a savepoint after which nothing has happened."""
        savepoint = self._spare or self._left
        if not (savepoint and self._pinned.is_private):
            self._clear_top()
            savepoint = self.name()
            self._pinned.open(savepoint, read_only=read_only)
            return savepoint
        if self._left:
            with self._intact():
                self._pinned.back_to(savepoint)
        if read_only:
            self._pinned.restrict()
        self._spare = self._left = ""
        return savepoint

    def _clear_top(self) -> None:
        """Do what was put off."""
        spare, self._spare = self._spare, ""
        left, self._left = self._left, ""
        with self._intact():
            if left and self._pinned.is_private:
                self._pinned.undo(left)
            elif left or spare:
                # what the driver's own cursors have done since is not ours to undo
                self._pinned.release(left or spare)

    def name(self) -> str:
        """Return a new name."""
        return f"qapla_db_{next(self._numbers)}"

    # --- ends

    def release(self, lane: Lane) -> None:
        """Release the savepoint of a lane, and with it those above."""
        self._clear_top()
        assert lane.savepoint is not None
        with self._intact():
            self._pinned.release(lane.savepoint)
        self._cut(lane)

    def commit(self, lane: Lane) -> None:
        """Release the savepoint of a lane above which nobody wrote.

        Deferred constraints can be checked for all lanes or for none, so that
        they are not while another has uncommitted work.

        :raises Exception: the driver's error, when the commit would have failed.
        """
        self._clear_top()
        assert lane.savepoint is not None
        uncommitted = [other for other in self._stack if other.is_uncommitted and other is not lane]
        if uncommitted:
            self.release(lane)
            for other in uncommitted:
                other.swallowed.append((len(other.nested), str(lane)))
            return
        spare = self.name() if self._pinned.is_private else ""
        try:
            self._pinned.commit(lane.savepoint, spare)
        except self._pinned.dbapi.Error:
            self.undo(lane)
            raise
        self._cut(lane)
        self._spare = spare

    def leave(self, lane: Lane) -> None:
        """Undo what a function may have done that a lane has called which only read."""
        put_off = self._pinned.is_private and lane is self._stack[-1] and not lane.failed
        if not put_off or lane.settings or lane.read_only:
            self.undo(lane)
            return
        self._clear_top()
        assert lane.savepoint is not None
        self._left = lane.savepoint
        self._cut(lane)

    def undo(self, lane: Lane) -> None:
        """Undo what happened since the savepoint of a lane."""
        self._clear_top()
        assert lane.savepoint is not None
        with self._intact():
            self._pinned.undo(lane.savepoint)
        self._cut(lane)

    def collapse(self) -> None:
        """Commit the lanes that waited for others above them."""
        while self._stack and self._stack[-1].committed:
            self.commit(self._stack[-1])

    def _cut(self, lane: Lane) -> None:
        index = self._stack.index(lane)
        for one in self._stack[index:]:
            one.savepoint = None
        del self._stack[index:]

    # --- failures

    def rewind(self, lane: Lane) -> None:
        """After a failed statement of the topmost lane: go back as far as it will have to."""
        self._spare = self._left = ""  # above it
        innermost = lane.nested[-1][1] if lane.nested else lane.savepoint
        with self._intact():
            self._pinned.run(f"ROLLBACK TO SAVEPOINT {innermost}")
        lane.failed = True

    def settle(self) -> None:
        """Find out what happened to the connection behind our back."""
        if self._pinned.lost:
            return
        if not self._pinned.in_transaction:
            self.breaks("a commit or rollback on the driver's own connection", is_late=True)
        elif self._pinned.failed:
            # on a cursor of the driver; who is on top used it last
            if self._stack:
                self.rewind(self._stack[-1])
            else:
                self.breaks("a statement that failed on the driver's own connection", is_late=True)

    def breaks(self, by: str, *, is_late: bool = False) -> None:
        """Somebody ended the outer transaction: go on in a new one, and say so at the end.

        :param is_late: he did so before, and who runs now is another one.
        """
        if not is_late:
            by = f"{by}, at {place()},"
        self.broken = self.broken or self.ended_by(by)
        for lane in self._stack:
            lane.savepoint = None
            lane.nested.clear()
        self._stack.clear()
        self.writes += 1
        self._left = ""
        self._pinned.begin_again()
        self._spare = self._pinned.spare

    def ended_by(self, what: str) -> SandboxBroken:
        """Make the error of an outer transaction that somebody else has ended."""
        anew = "" if self._is_repaired else "make the test database anew (recreate(database)), and "
        return SandboxBroken(
            f"database {self.database!r}: {what} ended the outer transaction of the sandbox, "
            f"so what the test wrote before may be in the database for good; {anew}{REMEDY}"
        )

    @contextmanager
    def _intact(self) -> Iterator[None]:
        try:
            yield
        except self._pinned.dbapi.Error as error:
            if self._pinned.lost:
                raise
            # a savepoint of ours is missing
            self.breaks("a statement on the driver's own connection", is_late=True)
            assert self.broken is not None
            raise self.broken from error
