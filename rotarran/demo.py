"""``make demo``: databases, airports, a web server and a task worker; Ctrl-C ends them."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from waitress import create_server
from waitress.server import BaseWSGIServer

from qapla_db.errors import QaplaError
from qapla_db.migrations.commands import migrate
from rotarran import main
from rotarran.load import load_airports

HOST = "127.0.0.1"
PORT = 6543
PATIENCE = 15.0
"""Seconds that the worker gets to finish its tasks."""
RESTARTS = 5
"""How often a worker that ended is started again."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, ``kill``, a closed terminal."""

console = Console(highlight=False)


def prepare_databases() -> None:
    """Create what is missing, migrate both databases and load the airports."""
    for database in main.dbs.values():
        if database.create():
            console.print(f"created the database [b]{database.name}[/b]")
        migrate(database, report=console.print)
    count = load_airports(main.dbs["main"])
    console.print(f"{count:,} airports are in [b]main[/b]")


class Worker:
    """A Celery worker in a process of its own; one that ends is started again, a few times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_ending = False
        self._process = self._start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own: Ctrl-C is for us, who then end the worker in good order
        return subprocess.Popen(
            [sys.executable, "-m", "rotarran.worker"],
            start_new_session=True,
            stdin=subprocess.PIPE,
        )

    def _watch(self) -> None:
        for attempts in reversed(range(RESTARTS + 1)):
            code = self._process.wait()
            with self._lock:
                if self._is_ending:
                    return
                self._sweep()
                what = "it is started again" if attempts else "start the demo again"
                console.print(f"[red]the worker ended with the exit code {code}; {what}[/red]")
                if attempts:
                    self._process = self._start()

    def end(self) -> None:
        """Let it finish its tasks, within a bound."""
        with self._lock:
            self._is_ending = True
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sweep()

    def _sweep(self) -> None:
        """End the pool of a worker that was killed."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()


@contextmanager
def running(port: int) -> Iterator[BaseWSGIServer]:
    """Have everything ready; yield the web server, whose ``run()`` serves requests.

    :param port: where to listen; 0 takes a free one.
    """
    application = main.run_wsgi()
    server = create_server(application, host=HOST, port=port, max_request_body_size=65_536)
    try:
        prepare_databases()
        worker = Worker()
        try:
            yield server
        finally:
            worker.end()
    finally:
        server.close()
        main.close()


def port_number(text: str) -> int:
    """Return a port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number to 65535")
    return int(text)


def stop(signum: int, frame: object) -> None:
    """End on a signal, and let no second one disturb that."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(port: int) -> int:
    """Run the demo until it is ended; return the exit code."""
    for one in SIGNALS:
        if signal.getsignal(one) != signal.SIG_IGN:  # nohup
            signal.signal(one, stop)
    try:
        with running(port) as server:
            address = f"http://{HOST}:{server.effective_port}"
            console.print(f"\nairports      [b]{address}/[/b]")
            console.print(f"audit trail   {address}/audit")
            console.print(f"as JSON       {address}/api/airports")
            console.print("\nCtrl-C ends it; the data stays in", Path(main.paths.get("data")))
            sys.stdout.flush()
            server.run()
    except KeyboardInterrupt:
        pass
    except QaplaError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", soft_wrap=True)
        return 1
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        console.print(f"port {port} is taken; choose another: make demo ARGS='--port 8080'")
        return 1
    with suppress(OSError):  # the terminal may be closed
        console.print("ended")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rotarran.demo", description=__doc__)
    default = os.environ.get("PORT", str(PORT))
    parser.add_argument("--port", type=port_number, default=default, help="default: %(default)s")
    sys.exit(run(parser.parse_args().port))
