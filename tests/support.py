"""What the tests of several rooms share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from qapla_db import Database, DatabaseApplication

WAIT = 20.0
"""Seconds after which a wait for a condition gives up."""


class SmallApplication(DatabaseApplication):
    """An application with the databases that a test names."""

    settings_package = "tests.empty_settings"

    def __init__(self, names: tuple[str, ...] = ("main",)) -> None:
        super().__init__()
        self.names = names

    def append_app_plugins(self) -> None:
        self.add_database_app([Database(name, f"migrations_{name}") for name in self.names])

    def append_web_plugins(self) -> None:
        self.add_database_web()


def make_application(
    urls: Mapping[str, Any],
    *,
    endpoint: str = "command",
    settings: Mapping[str, Any] | None = None,
    paths: Mapping[str, str] | None = None,
) -> SmallApplication:
    """Prepare an application with one database per name and URL."""
    app = SmallApplication(tuple(urls))
    values = {f"db:{name}:url": url for name, url in urls.items()}
    app.prepare(endpoint, {**values, **(settings or {})})
    for key, value in (paths or {}).items():
        app.paths.set(key, value)
    return app


def plain_engine(url: sa.URL, **options: Any) -> sa.Engine:
    """Build an engine past everything of ours; in a Unix socket without the costs of TLS."""
    if url.drivername.endswith("+pymysql") and "unix_socket" in url.query:
        options["connect_args"] = {"ssl_disabled": True, **options.get("connect_args", {})}
    return sa.create_engine(url, **options)


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT) -> None:
    """Wait, with a bound, until a condition holds."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        pause.wait(0.01)
