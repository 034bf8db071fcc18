"""When a Celery process prepares the application, and when it closes it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import celery
import pytest
import sqlalchemy as sa
from celery import Celery

from tests.support import wait_until
from tests.tasks.conftest import databases
from tests.tasks.workers import (
    MODULE,
    ROOT,
    WAIT,
    Worker,
    celery_command,
    configuration,
    environment,
    start,
    worker_command,
)

NOWHERE = sa.make_url("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
URLS = {"main": NOWHERE, "audit": NOWHERE}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory for messages, results and the journal."""
    return tmp_path


def journal(home: Path) -> list[str]:
    """Return what was prepared and closed."""
    path = home / "journal"
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def running(
    command: list[str], home: Path, urls: Mapping[str, sa.URL], **more: str
) -> Iterator[Worker]:
    """Start a command, wait until it is ready, and kill it at the end."""
    client = Celery("tests", set_as_current=False)
    client.conf.update(configuration(home, None))
    worker = start(command, "", home, urls, client, **more)
    try:
        yield worker
    finally:
        worker.kill()


def run(
    command: list[str], home: Path, urls: Mapping[str, sa.URL], **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        env=environment(home, urls, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def test_a_worker_that_cannot_be_prepared_ends(home: Path) -> None:
    """A setting that is missing ends the worker at once, non-zero, with the setting's name."""
    ended = run(worker_command("prefork"), home, {})
    assert 1 == ended.returncode
    assert "the worker ends: <WorkerApplication: created> could not be prepared" in ended.stderr
    assert "'db:main:url' is not set for the database 'main'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (home / "ready").exists()


def test_an_error_in_the_application_is_shown_whole(home: Path) -> None:
    """An error that is not about settings ends the worker too, with its traceback."""
    (home / "journal").mkdir()  # so that the plugin cannot write its journal
    ended = run(worker_command("solo"), home, URLS)
    assert 1 == ended.returncode
    assert "IsADirectoryError" in ended.stderr
    assert "in prepare_app" in ended.stderr


def test_a_worker_prepares_and_closes_once(home: Path, postgresql_url: sa.URL) -> None:
    """At its end the worker closes what it prepared, and no connection of it is left."""
    with (
        databases(postgresql_url, home) as urls,
        running(worker_command("threads"), home, urls) as worker,
    ):
        worker.run("store", "me", "hello")
        connections = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert worker.query(connections)[0][0] > 0
        assert 0 == worker.stop()
        pid = worker.process.pid
        assert [f"{pid} prepared for celery", f"{pid} closed"] == journal(home)
        wait_until(lambda: worker.query(connections)[0][0] == 0, "the connections to be closed")


def test_a_pool_process_closes_its_connections(home: Path, mariadb_url: sa.URL) -> None:
    """A forked process says goodbye to the server when it ends, and leaves the rest to its parent.

    MariaDB counts the clients that break off, and writes each into its log.
    """
    command = [*worker_command("prefork", 1), "--max-tasks-per-child", "1"]
    count = "SHOW GLOBAL STATUS LIKE 'Aborted_clients'"
    with databases(mariadb_url, home) as urls, running(command, home, urls) as worker:
        before = worker.query(count)
        found = worker.run("whose_connection")
        others = "SELECT id FROM information_schema.processlist WHERE id = :id"
        wait_until(lambda: not worker.query(others, id=found["connection"]), "the process to end")
        assert before == worker.query(count)
        assert [f"{worker.process.pid} prepared for celery"] == journal(home)


def test_the_worker_of_another_celery_application_prepares_nothing(home: Path) -> None:
    """A worker that has the module imported, but works for another Celery, is left alone."""
    command = worker_command("solo", app=f"{MODULE}:stranger")
    with running(command, home, {}):
        assert [] == journal(home)


def test_beat_prepares_nothing(home: Path) -> None:
    """The scheduler only sends tasks and needs no database."""
    with running(celery_command("beat", "-s", str(home / "schedule"), "--pidfile="), home, {}):
        assert [] == journal(home)


def test_other_commands_prepare_nothing(home: Path) -> None:
    """``celery report`` and its like work without any settings of databases."""
    ended = run(celery_command("report"), home, {})
    assert 0 == ended.returncode, ended.stderr
    assert [] == journal(home)


def test_sending_prepares_nothing_and_checks_the_arguments(home: Path) -> None:
    """The process of the web application imports the tasks and sends them as it is."""
    code = f"""
        from {MODULE} import app, store
        try:
            store.delay("me")
        except TypeError as error:
            print(error)
        store.delay("me", "hello")
        print(app.phase)
    """
    ended = run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], home, {})
    assert "store() missing 1 required positional argument: 'text'\ncreated\n" == ended.stdout
    assert 1 == len(list((home / "messages").glob("*.msg")))


def test_a_module_that_prepares_for_another_endpoint_is_told_of(home: Path) -> None:
    """A worker whose modules prepare the application for the web works, and warns."""
    with running(worker_command("solo"), home, URLS, TASKS_ENDPOINT="wsgi") as worker:
        assert [f"{worker.process.pid} prepared for wsgi"] == journal(home)
        warning = "the worker uses <WorkerApplication: prepared for 'wsgi'> as it is prepared"
        assert warning in worker.log()


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="this Celery cannot spawn its processes")
def test_spawned_processes_prepare_themselves(home: Path) -> None:
    """A pool process that is not a fork is prepared when it starts and closed when it ends."""
    command = [*worker_command("prefork", 1), "--max-tasks-per-child", "1"]
    urls = {name: sa.make_url(f"sqlite:///{home / name}.sqlite3") for name in URLS}
    with running(command, home, urls, TASKS_START_METHOD="spawn") as worker:
        found = worker.run("whose_connection")
        assert "celery" == found["endpoint"]
        child, parent = found["process"], worker.process.pid
        assert child != parent
        wait_until(lambda: f"{child} closed" in journal(home), "the process to end")
        assert f"{parent} prepared for celery" == journal(home)[0]
        assert f"{child} prepared for celery" in journal(home)
        assert f"{parent} closed" not in journal(home)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mute", []),
        ("secretive", ["parent prepared", "child disposed", "parent disposed"]),
        ("closing", ["parent prepared", "child disposed", "parent closed", "parent disposed"]),
    ],
)
def test_a_host_of_another_make(home: Path, host: str, expected: list[str]) -> None:
    """A worker does with a host what the host can do: prepare it once, close its connections."""
    urls = {"main": sa.make_url("sqlite://")}
    module = "tests.tasks.other_host_app"
    command = worker_command("prefork", 1, app=f"{module}:celery")
    with running(command, home, urls, TASKS_HOST=host) as worker:
        child = worker.run("ask", module=module)
        assert child == worker.run("ask", module=module)
        assert 0 == worker.stop()
        pids = {"parent": str(worker.process.pid), "child": str(child)}
    lines = [line.removesuffix(" for celery") for line in journal(home)]
    assert [f"{pids[who]} {what}" for who, what in map(str.split, expected)] == lines


def test_a_worker_in_a_thread_uses_what_is_prepared(home: Path) -> None:
    """In a process prepared for tests a worker neither prepares nor closes the application."""
    code = f"""
        import sqlalchemy as sa
        from celery.contrib.testing.worker import start_worker
        from {MODULE} import Note, app, celery, store, store_shared
        from tests.tasks.model import Main

        url = {f"sqlite:///{home / 'main.sqlite3'}"!r}
        app.prepare("tests", {{"db:main:url": url, "db:audit:url": url}})
        Main.metadata.create_all(app.dbs["main"].engine)
        with start_worker(celery, perform_ping_check=False) as worker:
            number = store.delay("me", "hello").get(timeout=20)
            worker.stop()
        with app.dbs["main"].session() as session:
            print(app.phase, app.endpoint, session.get_one(Note, number).text)
    """
    ended = run([sys.executable, "-c", textwrap.dedent(code)], home, {})
    assert "prepared tests hello\n" == ended.stdout, ended.stderr
    assert ["prepared for tests"] == [line.partition(" ")[2] for line in journal(home)]
