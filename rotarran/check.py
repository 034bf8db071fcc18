"""``make demo-check``: the demo without a person: start, look, edit, compute, end, start again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

START = 180.0
"""Seconds that the demo may take until it answers."""
TASK = 60.0
"""Seconds that a task may take."""
END = 60.0
"""Seconds that the demo may take to end."""


class Failure(Exception):
    """Something was not as it should be."""


def expect(true: object, what: str) -> None:
    """Say what was seen, or fail."""
    if not true:
        raise Failure(f"not so: {what}")
    print(f"  ok  {what}")  # noqa: T201


class Browser:
    """Asks the demo as a browser and as a program would."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener = build_opener(HTTPCookieProcessor())

    def open(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Return the status and the text of a page; redirects are followed."""
        data = urlencode(form).encode() if form is not None else None
        try:
            with self._opener.open(Request(self.address + path, data), timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def json(self, path: str) -> Any:
        """Return what a JSON page says."""
        status, text = self.open(path)
        if status != 200:
            raise Failure(f"{path} answered {status}: {text[:200]}")
        return json.loads(text)


@contextmanager
def demo(data: Path) -> Iterator[Browser]:
    """Start the demo on a free port, and end it as Ctrl-C does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # in the background of a shell; to be deaf is inherited, a handler is not
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "rotarran.demo", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ROTARRAN_DATA": str(data)},
    )
    try:
        yield Browser(_address(process))
        process.send_signal(signal.SIGINT)
        expect(process.wait(END) == 0, "Ctrl-C ends it with the exit code 0")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START
    for line in process.stdout:
        print(f"      | {line.rstrip()}")  # noqa: T201
        found = re.search(r"airports +(http://\S+?)/$", line.rstrip())
        if found:
            return found[1]
        if time.monotonic() > deadline:
            break
    raise Failure("the demo did not start")


def look(browser: Browser) -> None:
    """Drive the pages and the task."""
    status, text = browser.open("/")
    expect(status == 200 and "<table>" in text, "the list of airports")
    total = browser.json("/api/airports")["total"]
    expect(total > 28_000, f"{total:,} airports")
    expect("Warsaw Chopin" in browser.open("/?q=EPWA")[1], "a search finds Warsaw by its code")
    expect(browser.json("/api/airports?page=2")["page"] == 2, "the second page")
    for path, wanted in {
        "/?page=-1": 400,
        "/?page=abc": 400,
        "/?page=9999": 404,
        "/?q=" + "x" * 100: 400,
        "/airports/NOPE": 404,
        "/airports/%00": 404,
        "/%ff": 400,
    }.items():
        expect(browser.open(path)[0] == wanted, f"{path[:20]} answers {wanted}")

    airport = browser.json("/api/airports/EPWA")["airport"]
    form = {"version": str(airport["version"]), "name": airport["name"], "elevation": "363"}
    expect(browser.open("/airports/EPWA", form)[0] == 400, "a form of another site is refused")
    token = re.search(r'name="csrf_token" value="(\w+)"', browser.open("/airports/EPWA")[1])
    expect(token, "the page's form has a token")
    own = {"csrf_token": token[1] if token else ""}
    form |= own
    expect(browser.open("/airports/EPWA", {**form, "elevation": "high"})[0] == 400, "a bad form")
    expect(browser.open("/airports/EPWA", form)[0] == 200, "a good form")
    expect(browser.json("/api/airports/EPWA")["airport"]["elevation"] == 363, "the edit is there")
    expect(browser.open("/airports/EPWA", form)[0] == 409, "an edit of an old state is refused")

    expect(browser.open("/airports/EPWA/neighbours", own)[0] == 200, "the task is started")
    deadline = time.monotonic() + TASK
    while not (neighbours := browser.json("/api/airports/EPWA")["neighbours"]):
        expect_soon(deadline, "the task has not finished")
    expect(len(neighbours) == 10, f"the worker found 10; the nearest is {neighbours[0]['name']}")
    while len(events := browser.json("/api/audit")["events"]) < 2:
        expect_soon(deadline, "the audit trail is not complete")
    actions = {event["action"] for event in events}
    expect(actions == {"edited", "computed neighbours"}, "the audit trail knows both")


def expect_soon(deadline: float, otherwise: str) -> None:
    """Wait a moment for another process, within a bound."""
    if time.monotonic() > deadline:
        raise Failure(otherwise)
    time.sleep(0.05)


def check() -> int:
    """Run the demo twice and say what was seen; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="rotarran-", ignore_cleanup_errors=True) as folder:
        # PostgreSQL refuses to run as root: its own user must be able to pass
        Path(folder).chmod(0o711)
        try:
            with demo(Path(folder)) as browser:
                look(browser)
            started = time.monotonic()
            with demo(Path(folder)) as browser:
                seconds = time.monotonic() - started
                kept = browser.json("/api/airports/EPWA")
                expect(kept["airport"]["elevation"] == 363, "a second start keeps the edit")
                expect(len(kept["neighbours"]) == 10, "and what the task computed")
                print(f"      the second start took {seconds:.1f} s")  # noqa: T201
        except Failure as failure:
            print(f"FAILED: {failure}")  # noqa: T201
            return 1
    print("the demo works")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(check())
