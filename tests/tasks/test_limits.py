"""Time limits and killed processes in the prefork pool."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from tests.support import wait_until
from tests.tasks.workers import Worker, value

WITHIN = 2.0
"""Seconds in which the locks of an ended task must be free."""


@pytest.fixture
def prefork(request: pytest.FixtureRequest, workers: Callable[[str, str], Worker]) -> Worker:
    """The prefork worker of a kind of database; ``redis`` is one with that broker."""
    return workers("prefork", request.param)


def is_free(worker: Worker, owner: str) -> bool:
    """Tell whether nobody holds a lock on the rows of an owner."""
    try:
        worker.query("SELECT id FROM note WHERE owner = :owner FOR UPDATE NOWAIT", owner=owner)
    except sa.exc.OperationalError:
        return False
    return True


def prepare_rows(worker: Worker, owner: str, tasks: tuple[str, ...]) -> dict[str, str]:
    """Store a row for each task to lock, and return the owners."""
    owners = {task: f"{owner}-{task}" for task in tasks}
    for one in owners.values():
        worker.query("INSERT INTO note (owner, text) VALUES (:owner, 'first')", owner=one)
    return owners


@pytest.mark.parametrize("prefork", ["postgresql", "mariadb", "redis"], indirect=True)
def test_a_soft_time_limit_in_a_statement(prefork: Worker, owner: str) -> None:
    """The task's own error arrives, and its locks are free at once, also when it ends well."""
    owners = prepare_rows(prefork, owner, ("sleep_in_a_statement", "clean_up_after_a_statement"))
    results = {task: prefork.send(task, one) for task, one in owners.items()}
    for one in owners.values():
        wait_until((prefork.home / f"locked-{one}").exists, "the lock")
        assert not is_free(prefork, one)
    with pytest.raises(SoftTimeLimitExceeded):
        value(results["sleep_in_a_statement"])
    assert "cleaned up" == value(results["clean_up_after_a_statement"])
    ended = time.monotonic()
    for one in owners.values():
        wait_until(lambda one=one: is_free(prefork, one), "the lock to be free")  # type: ignore[misc]
        assert ["first"] == prefork.texts(one)
    assert time.monotonic() - ended < WITHIN
    assert not _idle_in_transaction(prefork)


@pytest.mark.parametrize("prefork", ["postgresql", "redis"], indirect=True)
def test_a_hard_time_limit_in_a_statement(prefork: Worker, owner: str) -> None:
    """The killed process is replaced, its locks are freed, and the next tasks are fine.

    On PostgreSQL alone: MariaDB does not look after its client while a statement runs.
    """
    (one,) = prepare_rows(prefork, owner, ("sleep_until_killed",)).values()
    result = prefork.send("sleep_until_killed", one)
    wait_until((prefork.home / f"locked-{one}").exists, "the lock")
    assert not is_free(prefork, one)
    with pytest.raises(TimeLimitExceeded):
        value(result)
    ended = time.monotonic()
    wait_until(lambda: is_free(prefork, one), "the lock to be free")
    assert time.monotonic() - ended < WITHIN
    assert ["first"] == prefork.texts(one)
    sent = [prefork.send("store", f"{one}-next", str(number)) for number in range(8)]
    assert 8 == len({value(result) for result in sent})


def _idle_in_transaction(worker: Worker) -> list[sa.Row[tuple[int]]]:
    if worker.urls["main"].get_backend_name() != "postgresql":
        return []
    return worker.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%' AND pid <> :parent",
        parent=worker.run("whose_connection")["parent"],
    )
