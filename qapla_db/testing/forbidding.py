"""Databases that a test has not named, and so may not use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from qapla_db.database import Database
from qapla_db.errors import DatabaseNotNamed
from qapla_db.testing.guarding import RefusingPool
from qapla_db.testing.places import place
from qapla_db.testing.sandboxes.sandbox import pool_installed

__all__ = ["forbidden"]


@contextmanager
def forbidden(
    database: Database, test: str, named: Sequence[str], is_shown: Callable[[], bool]
) -> Iterator[None]:
    """Let nobody connect to a database during a block.

    :param test: the name of the test, for messages.
    :param named: the databases that it has named.
    :param is_shown: tells whether the test has shown such an error.
    :raises DatabaseNotNamed: at the attempt, and at the end where the test did not show it.
    """

    def error() -> DatabaseNotNamed:
        names = ", ".join(repr(name) for name in (*named, database.name))
        return DatabaseNotNamed(
            f"{test} used the database {database.name!r}, at {place()}, and has not named it; "
            f"give it the mark @pytest.mark.database({names})"
        )

    pool = RefusingPool(database.engine.pool, error)
    with pool_installed(database.engine, pool):
        yield
    if pool.problem is not None and not is_shown():
        raise pool.problem
