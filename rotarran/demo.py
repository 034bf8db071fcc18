"""``make demo``: databases, airports, a web server and a task worker; Ctrl-C ends them."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

console = Console(highlight=False)


def prepare_databases() -> None:
    """Create what is missing, migrate both databases and load the airports."""
    for database in main.dbs.values():
        if database.create():
            console.print(f"created the database [b]{database.name}[/b]")
        migrate(database, report=console.print)
    count = load_airports(main.dbs["main"])
    console.print(f"{count:,} airports are in [b]main[/b]")


@contextmanager
def worker() -> Iterator[None]:
    """Run a Celery worker in a process of its own."""
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "rotarran.tasks", "worker"]
    command += ["--concurrency=2", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
    # a session of its own: Ctrl-C is for us, who then end the worker in good order
    process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        if process.poll() is not None:
            console.print(
                f"[red]the worker had ended with the exit code {process.returncode}[/red]"
            )
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(port: int) -> Iterator[BaseWSGIServer]:
    """Have everything ready; yield the web server, whose ``run()`` serves requests.

    :param port: where to listen; 0 takes a free one.
    """
    application = main.run_wsgi()
    server = create_server(application, host=HOST, port=port, max_request_body_size=65_536)
    try:
        prepare_databases()
        with worker():
            yield server
    finally:
        server.close()
        main.close()


def port_number(text: str) -> int:
    """Return a port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number to 65535")
    return int(text)


def stop(signum: int, frame: object) -> None:
    """End on SIGTERM as on Ctrl-C."""
    raise KeyboardInterrupt


def run(port: int) -> int:
    """Run the demo until it is ended; return the exit code."""
    signal.signal(signal.SIGTERM, stop)
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
    console.print("ended")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m rotarran.demo", description=__doc__)
    default = os.environ.get("PORT", str(PORT))
    parser.add_argument("--port", type=port_number, default=default, help="default: %(default)s")
    sys.exit(run(parser.parse_args().port))
