"""The demo ends what it started, however it ends itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qapla_db.backends.embedded_supervisor import postmaster_pid
from tests import servers
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 120.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the demo needs Unix")


class Demo:
    """The demo in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "said").open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-u", "-m", "rotarran.demo", "--port", "0"],
                cwd=ROOT,
                env={**os.environ, "ROTARRAN_DATA": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def workers(self) -> list[int]:
        """The worker, first, and the processes of its pool."""
        (worker,) = children(self.popen.pid)
        wait_until(lambda: len(children(worker)) == 2, "the worker's pool is up", SECONDS)
        return [worker, *children(worker)]

    def left(self, processes: list[int]) -> list[int]:
        server = postmaster_pid(self.folder / "postgresql")
        return [one for one in processes if one in listed()] + ([server] if server else [])


def listed() -> dict[int, int]:
    """Every process that runs, with its parent."""
    shown = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    lines = (line.split() for line in shown.splitlines())
    return {int(pid): int(parent) for pid, parent, state in lines if not state.startswith("Z")}


def children(parent: int) -> list[int]:
    return [pid for pid, one in listed().items() if one == parent]


@pytest.fixture
def demo() -> Iterator[Demo]:
    with servers.directory("demo") as folder:
        demo = Demo(folder)
        try:
            wait_until(lambda: "Ctrl-C ends it" in demo.said(), "the demo is up", SECONDS)
            yield demo
        finally:
            demo.popen.terminate()
            demo.popen.wait(SECONDS)
            wait_until(lambda: not demo.left([]), "the server has ended", SECONDS)


def test_closed_terminal(demo: Demo) -> None:
    """A hangup ends the demo in good order, with its worker and its database server."""
    processes = demo.workers()
    demo.popen.send_signal(signal.SIGHUP)
    assert 0 == demo.popen.wait(SECONDS)
    wait_until(lambda: not demo.left(processes), "everything has ended", SECONDS)


def test_killed(demo: Demo) -> None:
    """Worker and database server end also after a demo that could end nothing itself."""
    processes = demo.workers()
    demo.popen.kill()
    wait_until(lambda: not demo.left(processes), "everything has ended", SECONDS)


def test_killed_worker(demo: Demo) -> None:
    """A worker that dies is noticed and started again, and nothing of the dead one is left."""
    processes = demo.workers()
    os.kill(processes[0], signal.SIGKILL)
    wait_until(lambda: "it is started again" in demo.said(), "the demo has noticed", SECONDS)
    wait_until(lambda: not set(processes) & set(listed()), "its pool has ended", SECONDS)
    wait_until(lambda: children(demo.popen.pid), "there is a new worker", SECONDS)
    assert not set(processes) & set(demo.workers())
