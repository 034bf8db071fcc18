"""Forks: a child never uses a connection of its parent, and closes none."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support import make_application, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

ROOT = Path(__file__).parents[1]

WSGI = """
import os
import sqlalchemy as sa
from tests.support import make_application

app = make_application({"main": os.environ["URL"]})
database = app.dbs["main"]
opened = database.get_session(read_only=True)
opened.scalar(sa.text("SELECT 1"))
with database.session(read_only=True) as session:
    session.scalar(sa.text("SELECT 1"))

def application(environ, start_response):
    with database.session(read_only=True) as session:
        answer = session.scalar(sa.text("SELECT :n + 0"), {"n": int(environ["QUERY_STRING"])})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{answer} {os.getpid()}".encode()]
"""

ENDINGS = ["exit", "_exit", "close", "dispose"]
UNUSED = ["unused close in c", "unused dispose in c"]
SCENARIOS = [*ENDINGS, "in c", *UNUSED, "generations", "multiprocessing"]

_seen: dict[str, Any] = {}


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seen(kind: str, fresh_url: Callable[[str], sa.URL]) -> Any:
    """What the program that forks saw on a database of a kind; it runs once for all tests."""
    if kind not in _seen:
        url = fresh_url(kind)
        with make_application({"main": url}) as app:
            app.dbs["main"].create()
            with app.dbs["main"].transaction() as session:
                session.execute(sa.text("CREATE TABLE visit (who VARCHAR(9))"))
        text = url.render_as_string(hide_password=False)
        done = subprocess.run(
            [sys.executable, "-m", "tests.forks", text, *SCENARIOS],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "" == done.stderr
        _seen[kind] = json.loads(done.stdout)
    return _seen[kind]


UNDISTURBED = {
    "code": 0,
    "own connection": True,
    "parent's session": True,
    "parent's pool": True,
    "stored": 1,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_fork(seen: Any, ending: str) -> None:
    """The parent's session fails in the child, whose own works; the parent notices nothing."""
    found = dict(seen[ending])
    inherited = found.pop("inherited")
    assert inherited in ("OperationalError", "StatementError", "SessionConflict")
    assert UNDISTURBED == found


def test_fork_in_c(seen: Any) -> None:
    """A child that no hook of Python told about the fork opens connections of its own."""
    assert {**UNDISTURBED, "inherited": "unused"} == seen["in c"]


@pytest.mark.parametrize("scenario", UNUSED)
def test_fork_in_c_and_close(seen: Any, scenario: str) -> None:
    """A child forked in C code that closes its databases at once leaves the parent's open."""
    assert {"code": 0, "parent's pool": True} == seen[scenario]


def test_generations(seen: Any, kind: str) -> None:
    """Children of children have connections of their own."""
    connections = 1 if kind == "sqlite" else 3
    expected = {"code": 0, "connections": connections, "visitors": ["0", "1"]}
    assert expected == seen["generations"]


def test_multiprocessing(seen: Any) -> None:
    """Forked workers and their parent, asking at once, get no answer of each other's."""
    assert {"answers": 600, "right": 600} == seen["multiprocessing"]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def ask(path: str, number: int) -> list[int]:
    """The number that a worker answers, and its process."""
    connection = UnixConnection(path)
    connection.request("GET", f"/?{number}")
    answer = connection.getresponse().read()
    connection.close()
    return [int(part) for part in answer.split()]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_gunicorn_with_preload(
    kind: str, fresh_url: Callable[[str], sa.URL], tmp_path: Path
) -> None:
    """Workers of gunicorn, forked from a parent that used its pool, give no crossed answers."""
    pytest.importorskip("gunicorn")
    url = fresh_url(kind)
    with make_application({"main": url}) as app:
        app.dbs["main"].create()
    (tmp_path / "preloaded.py").write_text(WSGI)
    path, log = str(tmp_path / "s"), tmp_path / "log"
    arguments = ["--preload", "--workers=3", "--threads=2", f"--bind=unix:{path}"]
    arguments += [f"--pythonpath={tmp_path},{ROOT}", f"--log-file={log}"]
    environ = {**os.environ, "URL": url.render_as_string(hide_password=False)}
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *arguments, "preloaded:application"],
        env=environ,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        booted = lambda: log.exists() and log.read_text().count("Booting worker") == 3  # noqa: E731
        wait_until(lambda: booted() or server.poll() is not None, "gunicorn has its workers")
        assert server.poll() is None, log.read_text()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: ask(path, number), range(300)))
    finally:
        server.terminate()
        server.wait(30)
    assert list(range(300)) == [answer for answer, _ in answers]
    assert len(Counter(process for _, process in answers)) > 1
    assert "rror" not in log.read_text()
