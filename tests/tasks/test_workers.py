"""Tasks with sessions in real workers of every pool."""

from __future__ import annotations

import celery
import pytest
import sqlalchemy as sa

from qapla_db.errors import Misuse
from tests.support import wait_until
from tests.tasks.workers import Worker, is_ready, value


def test_what_a_task_commits_is_stored(worker: Worker, owner: str) -> None:
    """A committed row is there and its task's result arrives."""
    number = worker.run("store", owner, "hello")
    assert [(number, "hello")] == worker.query(
        "SELECT id, text FROM note WHERE owner = :owner", owner=owner
    )


def test_a_task_that_raises_is_rolled_back(worker: Worker, owner: str) -> None:
    """The caller gets the task's own error, and nothing of the task is stored."""
    with pytest.raises(LookupError, match="no such thing as hello"):
        worker.run("store_and_fail", owner, "hello")
    assert [] == worker.texts(owner)


def test_forgotten_commits_are_in_the_log(worker: Worker, owner: str) -> None:
    """A task that ends well without its commit stores nothing and leaves one warning."""
    warning = (
        "tests.tasks.worker_app.store_and_forget() ended with uncommitted changes "
        "in the database 'main'"
    )
    before = worker.log().count(warning)
    assert "done" == worker.run("store_and_forget", owner, "hello")
    assert [] == worker.texts(owner)
    wait_until(lambda: worker.log().count(warning) > before, "the warning in the log")
    assert before + 1 == worker.log().count(warning)


def test_a_retry_rolls_back_and_starts_anew(worker: Worker, owner: str) -> None:
    """self.retry() is not masked, and what the failed tries wrote is gone."""
    worker.send("store_at_third_try", owner)
    # not the result: Celery may store the state RETRY after the next try's SUCCESS
    wait_until(lambda: worker.texts(owner), "the third try")
    assert ["try 2 saw 0"] == worker.texts(owner)


def test_ignored_and_rejected_tasks_are_rolled_back(worker: Worker, owner: str) -> None:
    """Ignore and Reject arrive at Celery, and nothing of their tasks is stored."""
    ignored, rejected = (
        worker.send("store_and_ignore", owner),
        worker.send("store_and_reject", owner),
    )
    wait_until(lambda: f"{ignored.id}] ignored" in worker.log(), "the task to be ignored")
    wait_until(
        lambda: f"{rejected.id}] reject requeue=False" in worker.log(), "the task to be rejected"
    )
    assert [] == worker.texts(owner)
    assert 1 == worker.run("store_shared", owner)


def test_a_task_with_two_databases(worker: Worker, owner: str) -> None:
    """Each of two stacked decorators gives the session of its database."""
    both = worker.run("store_in_both", owner)
    assert {"main", "audit"} == set(both)
    assert ["both"] == worker.texts(owner)
    assert ["both"] == worker.texts(owner, "mark", "audit")


def test_a_returned_object_is_refused_after_the_commit(worker: Worker, owner: str) -> None:
    """A task that returns an ORM object fails with the advice, and keeps what it committed."""
    with pytest.raises(Misuse, match=r"returned Note, .* return plain values"):
        worker.run("return_object", owner)
    assert ["returned"] == worker.texts(owner)


@pytest.mark.parametrize("task", ["StoreTask", "store_shared"])
def test_other_kinds_of_tasks(worker: Worker, owner: str, task: str) -> None:
    """Tasks that are classes and shared tasks get their sessions too."""
    assert 1 == worker.run(task, owner)


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="this Celery has no pydantic tasks")
def test_pydantic_tasks(worker: Worker, owner: str) -> None:
    """A pydantic task takes and returns models, and does not ask for the session."""
    assert {"owner": owner, "count": 2} == worker.run("store_order", {"owner": owner, "count": 2})


def test_spoilt_sessions_hurt_nobody(worker: Worker, owner: str) -> None:
    """Among tasks that end in every wrong way, the innocent ones all store exactly their row."""
    kinds = ["good", "broken statement", "good", "swallowed error", "good", "left open"] * 5
    results = [(kind, worker.send("misbehave", owner, kind)) for kind in kinds]
    for kind, result in results:
        wait_until(lambda one=result: is_ready(one), f"a {kind} task")  # type: ignore[misc]
    assert {"stored"} == {value(result) for kind, result in results if kind == "good"}
    assert {"FAILURE"} == {result.state for kind, result in results if kind == "broken statement"}
    assert ["good"] * 15 == worker.texts(owner)


def test_the_application_is_prepared_for_celery(worker: Worker) -> None:
    """The settings that hold in a worker are those of the endpoint celery."""
    found = worker.run("whose_connection")
    assert ("celery", "prepared") == (found["endpoint"], found["phase"])
    assert [f"{worker.process.pid} prepared for celery"] == worker.journal()


def test_no_connection_is_shared_between_processes(worker: Worker) -> None:
    """A process of the pool uses neither the connections of its parent nor of its siblings."""
    sent = [worker.send("whose_connection") for _ in range(20)]
    found = [value(result) for result in sent]
    if worker.pool == "prefork":
        assert worker.process.pid not in {one["process"] for one in found}
        assert all(one["parent"] for one in found)
    assert not {one["connection"] for one in found} & {one["parent"] for one in found}
    users: dict[int, set[int]] = {}
    for one in found:
        users.setdefault(one["connection"], set()).add(one["process"])
    assert {1} == {len(processes) for processes in users.values()}


def test_nothing_is_left_open(worker: Worker, owner: str) -> None:
    """After tasks of every kind no connection is checked out and no transaction is open."""
    for kind in ("good", "left open", "swallowed error"):
        worker.run("misbehave", owner, kind)
    if worker.pool == "prefork":
        parent = worker.run("whose_connection")["parent"]
        wait_until(lambda: not _open_transactions(worker, parent), "the transactions to end")
    else:
        assert 0 == worker.run("checked_out")


def _open_transactions(worker: Worker, parent: int) -> list[sa.Row[tuple[int]]]:
    """Ask the server for transactions of the worker's database, but for its parent's own."""
    query = {
        "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%' AND pid <> :parent",
        "mysql": "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx "
        "JOIN information_schema.processlist ON id = trx_mysql_thread_id "
        "WHERE db = database() AND id NOT IN (:parent, connection_id())",
    }
    dialect = worker.urls["main"].get_backend_name().replace("mariadb", "mysql")
    return worker.query(query[dialect], parent=parent)
