"""Test databases between tests: nobody may use them, for nothing would undo what he does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from sqlalchemy.pool import NullPool, Pool, PoolProxiedConnection

from qapla_db.database import Database
from qapla_db.errors import QaplaError, SandboxError
from qapla_db.testing.places import place
from qapla_db.testing.sandboxes.sandbox import root_engine

__all__ = ["Guard", "RefusingPool"]


class RefusingPool(NullPool):
    """Takes the place of a pool and gives nobody a connection.

    :param real: the pool.
    :param error: makes the error that who asks gets.
    """

    sandboxed: ClassVar[bool] = True

    def __init__(self, real: Pool, error: Callable[[], QaplaError]) -> None:
        super().__init__(real._creator, dialect=real._dialect)
        self.real = real
        self._error = error
        self.problem: QaplaError | None = None

    def connect(self) -> PoolProxiedConnection:
        error = self._error()
        self.problem = self.problem or error
        raise error

    def dispose(self) -> None:
        """Close the connections of the pool behind it."""
        self.real.dispose()
        self.real = self.real.recreate()

    def recreate(self) -> RefusingPool:
        """Return itself: who disposes of the engine may not use it afterwards either."""
        return self


class Guard:
    """Refuses connections to a database outside of tests."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._application = type(database.host).__name__
        self._engine = root_engine(database.engine)
        self._pool = RefusingPool(self._engine.pool, self._error)
        self._engine.pool = self._pool

    def _error(self) -> SandboxError:
        name = self._database.name
        return SandboxError(
            f"the test database {name!r} of {self._application} is used where no test of this "
            f"application runs, at {place()}: what is committed there would be seen by every test "
            "that follows. Make rows for a class in set_up_data(cls, dbsession), others in a "
            "fixture of a test, and none in fixtures of a wider scope, setup_class or "
            "setup_module; a test of another application names a fixture of this one too"
        )

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Let everybody use the database during a block."""
        if self._engine.pool is not self._pool:
            yield
            return
        self._engine.pool = self._pool.real
        try:
            yield
        finally:
            self._pool.real = self._engine.pool
            self._engine.pool = self._pool
