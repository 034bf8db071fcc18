"""Databases that a test has not named, and so may not use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from sqlalchemy.pool import NullPool, Pool, PoolProxiedConnection

from qapla_db.database import Database
from qapla_db.errors import DatabaseNotNamed
from qapla_db.testing.places import place
from qapla_db.testing.sandbox import pool_installed

__all__ = ["forbidden"]


@contextmanager
def forbidden(database: Database, test: str, is_shown: Callable[[], bool]) -> Iterator[None]:
    """Let nobody connect to a database during a block.

    :param test: the name of the test, for messages.
    :param is_shown: tells whether the test has shown such an error.
    :raises DatabaseNotNamed: at the attempt, and at the end where the test did not show it.
    """
    pool = _Forbidden(database.engine.pool, database.name, test)
    with pool_installed(database.engine, pool):
        yield
    if pool.problem is not None and not is_shown():
        raise pool.problem


class _Forbidden(NullPool):
    """Gives nobody a connection."""

    sandboxed: ClassVar[bool] = True

    def __init__(self, real: Pool, name: str, test: str) -> None:
        super().__init__(real._creator, dialect=real._dialect)
        self._name = name
        self._test = test
        self.problem: DatabaseNotNamed | None = None

    def connect(self) -> PoolProxiedConnection:
        problem = DatabaseNotNamed(
            f"{self._test} used the database {self._name!r}, at {place()}, and has not named it; "
            f"add @pytest.mark.database({self._name!r}) to it, beside those that it names"
        )
        self.problem = self.problem or problem
        raise problem

    def recreate(self) -> _Forbidden:
        """Return itself: a test that disposes of the engine may not use it afterwards either."""
        return self
