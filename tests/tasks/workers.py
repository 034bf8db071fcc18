"""Celery workers as processes of their own, and a client that sends them tasks."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery
from celery.result import AsyncResult
from kombu.exceptions import DecodeError

import rotarran.broker  # noqa: F401  registers files://
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
MODULE = "tests.tasks.worker_app"
CELERY = f"{MODULE}:celery"
WAIT = 30.0
"""Seconds for a result or the start or end of a worker."""

_numbers = itertools.count(1)


def configuration(home: Path, broker: str | None, results: str | None = None) -> dict[str, Any]:
    """Return what workers and their clients must agree on; by default all is in files."""
    for name in ("messages", "control", "results"):
        (home / name).mkdir(exist_ok=True)
    config: dict[str, Any] = {
        "broker_url": broker or "files://localhost/",
        "result_backend": results or f"file://{home / 'results'}",
        "broker_connection_retry_on_startup": True,
        "worker_hijack_root_logger": False,
        "worker_prefetch_multiplier": 1,
    }
    if broker is None:
        config["broker_transport_options"] = {
            "data_folder_in": str(home / "messages"),
            "data_folder_out": str(home / "messages"),
            "control_folder": str(home / "control"),
            "polling_interval": 0.05,
        }
    return config


def environment(home: Path, urls: Mapping[str, sa.URL], **more: str) -> dict[str, str]:
    """Return the environment of a worker or another ``celery`` command."""
    found = {
        f"QAPLA_DB_{name.upper()}_URL": url.render_as_string(hide_password=False)
        for name, url in urls.items()
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "TASKS_HOME": str(home), **found, **more}


def celery_command(*arguments: str, app: str = CELERY) -> list[str]:
    """Return the command line of a ``celery`` command."""
    return [sys.executable, "-m", "celery", "-A", app, *arguments]


def worker_command(
    pool: str, concurrency: int = 4, app: str = CELERY, level: str = "INFO"
) -> list[str]:
    """Return the command line of a worker."""
    options = ["-P", pool, "-c", str(concurrency), "-l", level, "-n", f"w{next(_numbers)}@test"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return celery_command("worker", *options, *quiet, app=app)


@dataclass
class Worker:
    """A running worker, its databases, and the client that sends it tasks."""

    pool: str
    home: Path
    urls: Mapping[str, sa.URL]
    process: subprocess.Popen[bytes]
    client: Celery
    engines: dict[str, sa.Engine] = field(default_factory=dict)
    ending: bool = False

    def send(self, task: str, *args: Any, module: str = MODULE, **kwargs: Any) -> AsyncResult:
        """Send a task of :mod:`tests.tasks.worker_app` by its name."""
        return self.client.send_task(f"{module}.{task}", args, kwargs)

    def run(self, task: str, *args: Any, **kwargs: Any) -> Any:
        """Send a task, wait for it and return what it returned, or raise what it raised."""
        return value(self.send(task, *args, **kwargs))

    def log(self) -> str:
        """Return what the worker has written so far."""
        return (self.home / "log").read_text(errors="replace")

    def journal(self) -> list[str]:
        """Return what was prepared and closed in the processes of the worker."""
        path = self.home / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def query(self, statement: str, database: str = "main", **parameters: Any) -> list[Any]:
        """Return the rows of a statement that the tests run themselves, committed."""
        if database not in self.engines:
            url = self.urls[database]
            self.engines[database] = sa.create_engine(url, poolclass=sa.NullPool)
        with self.engines[database].begin() as connection:
            found = connection.execute(sa.text(statement), parameters)
            return list(found) if found.returns_rows else []

    def texts(self, owner: str, table: str = "note", database: str = "main") -> list[str]:
        """Return the texts of an owner's rows."""
        query = f"SELECT text FROM {table} WHERE owner = :owner ORDER BY id"  # noqa: S608
        return [row.text for row in self.query(query, database, owner=owner)]

    def begin_to_stop(self) -> None:
        """Ask the worker to end; a second SIGTERM could kill it on its last steps."""
        if not self.ending and self.process.poll() is None:
            self.process.terminate()
        self.ending = True

    def stop(self) -> int:
        """End the worker and return its exit code."""
        self.begin_to_stop()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not end:\n{self.log()[-4000:]}") from None
        for engine in self.engines.values():
            engine.dispose()
        return self.process.returncode

    def kill(self) -> None:
        """End the worker and its processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT)


def value(result: AsyncResult, seconds: float = WAIT) -> Any:
    """Wait for a result and return it; the task's own error is raised."""
    wait_until(lambda: is_ready(result), f"the result of {result.id}", seconds)
    return result.get(timeout=1)


def is_ready(result: AsyncResult) -> bool:
    """Tell whether a task has ended."""
    try:
        return bool(result.ready())
    except DecodeError:
        return False  # the file of the result is being written


def start(
    command: list[str],
    pool: str,
    home: Path,
    urls: Mapping[str, sa.URL],
    client: Celery,
    **more: str,
) -> Worker:
    """Start a worker and wait until it takes tasks."""
    with (home / "log").open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment(home, urls, **more),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    worker = Worker(pool, home, urls, process, client)
    try:
        wait_until(
            lambda: (home / "ready").exists() or process.poll() is not None, "the worker", WAIT
        )
        assert process.poll() is None, f"the worker ended:\n{worker.log()[-4000:]}"
    except BaseException:
        worker.kill()
        raise
    return worker
