# mypy: disable-error-code="untyped-decorator"
"""A Celery application over a host of another make; the class of the host is in ``TASKS_HOST``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, signals
from morfdict import Paths
from sqlalchemy.orm import Session

from qapla_db import Database, DatabaseMixin
from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from tests.tasks.workers import configuration

home = Path(os.environ["TASKS_HOME"])


def write(what: str) -> None:
    with (home / "journal").open("a") as file:
        file.write(f"{os.getpid()} {what}\n")


class Journaled(Database):
    """A database that writes down where its connections are closed."""

    def dispose(self) -> None:
        write("disposed")
        super().dispose()


class Mute(DatabaseMixin):
    """It prepares itself when it is made, and has neither endpoint, prepare() nor close()."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.paths = Paths()
        self.begin()

    def begin(self) -> None:
        self.add_database_app([Journaled("main")])


class Secretive(Mute):
    """It can be prepared, once, but does not tell what for."""

    def begin(self) -> None:
        pass

    def prepare(self, endpoint: str, settings: Mapping[str, Any] | None = None) -> None:
        write(f"prepared for {endpoint}")
        super().begin()


class Closing(Secretive):
    """It can be closed too."""

    def close(self) -> None:
        write("closed")
        self.close_databases()


host: Any = {"mute": Mute, "secretive": Secretive, "closing": Closing}[os.environ["TASKS_HOST"]]()
celery = Celery("other")
celery.conf.update(configuration(home, None))
connect_celery(celery, host)


@signals.worker_ready.connect
def tell_that_it_is_ready(**_: Any) -> None:
    (home / "ready").touch()


@celery.task
@WithDatabase(host, "main")
def ask(*, main: Session = INJECTED) -> int:
    main.execute(sa.text("SELECT 1"))
    main.rollback()
    return os.getpid()
