"""Listening to every engine and session for a while, also while other threads use them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["Listeners"]

T = TypeVar("T")


class Listeners(Generic[T]):
    """Who listens now.

    SQLAlchemy's own listeners are added once and never taken away, for that would
    disturb the threads that just call them; they ask here who is to be told.
    """

    def __init__(self) -> None:
        self.now: tuple[T, ...] = ()
        self._lock = threading.Lock()

    def add(self, one: T) -> None:
        """Tell somebody from now on."""
        with self._lock:
            self.now = (*self.now, one)

    def remove(self, one: T) -> None:
        """Tell him no longer."""
        with self._lock:
            self.now = tuple(other for other in self.now if other is not one)

    @contextmanager
    def during(self, one: T) -> Iterator[None]:
        """Tell somebody during a block."""
        self.add(one)
        try:
            yield
        finally:
            self.remove(one)
