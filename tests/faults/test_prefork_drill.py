"""A prefork worker under fire: processes are killed and connections cut while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from qapla_db.backends import get_backend
from tests.support import wait_until
from tests.tasks.workers import Worker, configuration, is_ready, start, worker_command

TASKS = 2000
EVERY = 200
"""Tasks between two faults of a kind."""
KILLS = 5
"""Processes that end in the drill, at least."""
LIMIT = 240.0
"""Seconds after which the drill gives up; on an idle machine it takes about 20."""
MODULE = "tests.faults.drill_app"
TABLES = {
    "half": "CREATE TABLE half (number int PRIMARY KEY, process int, connection int)",
    "whole": "CREATE TABLE whole (number int PRIMARY KEY, process int, connection int)",
}


KILLED_AT_ANY_MOMENT = pytest.param(
    "redis",
    marks=pytest.mark.skipif(
        not os.environ.get("QAPLA_SOAK"),
        reason="Celery can lose a task when its processes are killed at any moment: make soak",
    ),
)


@pytest.fixture(params=["files", KILLED_AT_ANY_MOMENT])
def worker(
    request: pytest.FixtureRequest, postgresql_database_url: sa.URL, tmp_path: Path
) -> Iterator[Worker]:
    """A prefork worker whose parent has used the engine before the fork.

    With messages in files Celery's pool has one pipe for all processes and does not
    survive the death of the one that reads it: there tasks kill their own process. With
    Redis each process has its own, and any of them can be killed at any moment.
    """
    broker = request.getfixturevalue("redis_url") if request.param == "redis" else None
    backend = get_backend(postgresql_database_url)
    assert backend is not None
    urls = {"main": backend.complete(postgresql_database_url)}
    client = Celery("drill", set_as_current=False)
    client.conf.update(configuration(tmp_path, broker, broker))
    more = {"TASKS_BROKER": broker} if broker else {"DRILL_KILLS": _numbers_to_kill()}
    command = worker_command("prefork", app=f"{MODULE}:celery", level="WARNING")
    engine = sa.create_engine(urls["main"])
    with engine.begin() as connection:
        for statement in TABLES.values():
            connection.execute(sa.text(statement))
    engine.dispose()
    worker = start(command, request.param, tmp_path, urls, client, **more)
    try:
        yield worker
    finally:
        worker.kill()
        client.close()


def _numbers_to_kill() -> str:
    step = TASKS // KILLS
    return " ".join(str(number + number // step % 2) for number in range(50, TASKS, step))


def test_a_prefork_worker_under_fire(worker: Worker) -> None:
    """No connection is shared, what is acknowledged is there, and nothing is half there."""
    sent = {
        number: worker.client.send_task(f"{MODULE}.write_two_rows", (number,))
        for number in range(TASKS)
    }
    parent = int((worker.home / "parent").read_text())
    killed, cut = _disturb(worker, parent)

    for number, result in sent.items():
        # after a retry Celery may store the state RETRY over the next try's SUCCESS
        wait_until(lambda one=result: is_ready(one) or one.state == "RETRY", f"task {number}")  # type: ignore[misc]
        if result.state == "SUCCESS":
            assert number == result.get(timeout=5)
        else:
            assert "RETRY" == result.state, result.result
    half = worker.query("SELECT number, process, connection FROM half ORDER BY number")
    whole = worker.query("SELECT number, process, connection FROM whole ORDER BY number")
    assert list(range(TASKS)) == [row.number for row in whole]
    assert half == whole

    users: dict[int, set[int]] = {}
    for row in whole:
        users.setdefault(row.connection, set()).add(row.process)
    assert {1} == {len(processes) for processes in users.values()}
    assert parent not in users
    assert worker.process.pid not in set().union(*users.values())
    assert killed >= KILLS
    assert cut >= TASKS // EVERY - 1

    assert [parent] == [row.pid for row in worker.query(OPEN_TRANSACTIONS)]
    assert 0 == worker.stop(), worker.log()[-4000:]
    assert parent == int((worker.home / "parent-at-the-end").read_text())


OPEN_TRANSACTIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND state LIKE 'idle in transaction%'"
)
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid NOT IN (:parent, pg_backend_pid())"
)


def _disturb(worker: Worker, parent: int) -> tuple[int, int]:
    """Kill and cut until all tasks are done; return how many were hit."""
    killed = cut = done = 0
    next_kill, next_cut = EVERY // 2 if worker.pool == "redis" else TASKS, EVERY
    deadline = time.monotonic() + LIMIT
    while done < TASKS:
        due = min(next_kill, next_cut, TASKS)
        left = deadline - time.monotonic()
        wait_until(lambda due=due: _done(worker) >= due, f"{due} of {TASKS} tasks", left)  # type: ignore[misc]
        done = _done(worker)
        if next_kill <= done < TASKS:
            killed += _kill_a_process(worker, killed)
            next_kill += EVERY
        if next_cut <= done < TASKS:
            cut += len(worker.query(TERMINATE, parent=parent))
            next_cut += EVERY
    return killed or len(list(worker.home.glob("killed-*"))), cut


def _done(worker: Worker) -> int:
    assert worker.process.poll() is None, worker.log()[-4000:]
    done: int = worker.query("SELECT count(*) AS done FROM whole")[0].done
    return done


def _kill_a_process(worker: Worker, turn: int) -> int:
    """Kill one of the pool's processes, at whatever it is."""
    seen = {row.process for row in worker.query("SELECT DISTINCT process FROM whole")}
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    family = (map(int, line.split()) for line in listed.stdout.splitlines())
    children = sorted(pid for pid, ppid in family if ppid == worker.process.pid and pid in seen)
    if not children:
        return 0
    os.kill(children[turn % len(children)], signal.SIGKILL)
    return 1
