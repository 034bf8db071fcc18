"""Who may write next on the one connection of a sandbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from qapla_db.errors import SandboxConflict, SandboxError
from qapla_db.testing.sandboxes.pinned import PinnedConnection
from qapla_db.testing.sandboxes.savepoints import REMEDY, Lane

__all__ = ["Turns"]

_POLL = 0.05
_SOON = 0.005


class Turns:
    """Lets one thread at a time hold a transaction that others would wait for.

    The thread that makes this object is that of the test: it may wait for any
    other, so nobody waits for it.

    :param database: its name, for messages.
    :param wait: seconds that a thread waits for another.
    """

    def __init__(self, database: str, wait: float) -> None:
        self.condition = threading.Condition(threading.RLock())
        self._database = database
        self._wait = wait
        self._home = threading.current_thread()
        self._holders: list[Lane] = []

    def take(self, lane: Lane, settle: Callable[[], None]) -> None:
        """Wait for the transactions of other threads, and hold those up that come later.

        :param settle: is called whenever others had the connection meanwhile.
        :raises SandboxConflict: another thread did not end its transaction in time.
        """
        if lane.holds:
            return
        deadline = time.monotonic() + self._wait
        while holder := self._holder():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise SandboxConflict(
                    f"database {self._database!r}: the transaction of {lane} waited "
                    f"{self._wait:g} s for that of {holder}, which holds uncommitted work on "
                    "the one connection of the sandbox; end that one first, use "
                    f"sandbox(database, wait=...) if it only needs longer, or {REMEDY}"
                )
            self.condition.wait(min(remaining, _POLL))
            settle()
        lane.holds = True
        lane.thread = threading.current_thread()
        self._holders.append(lane)

    def wait_for_rows(self, pinned: PinnedConnection) -> None:
        """Wait until a cursor of the driver has no rows to come.

        :raises SandboxError: it has in the end, for who fetches them may wait for us.
        """
        if not pinned.is_reading:
            return
        deadline = time.monotonic() + self._wait
        while pinned.is_reading:
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"database {self._database!r}: a COPY, or a cursor of the driver that fetches "
                    f"row by row, has had the one connection of the sandbox for {self._wait:g} s; "
                    f"end it before the next statement of another session, or {REMEDY}"
                )
            self.condition.wait(_SOON)

    def give_back(self, lane: Lane) -> None:
        """Let those go on that wait for a transaction."""
        if lane.holds:
            lane.holds = False
            self._holders.remove(lane)
            self.condition.notify_all()

    def _holder(self) -> Lane | None:
        exempt = (threading.current_thread(), self._home)
        for lane in self._holders:
            if lane.thread not in exempt and lane.thread.is_alive():
                return lane
        return None
