# mypy: disable-error-code="untyped-decorator"
"""The worker of the prefork drill: each task writes two rows in one transaction.

A task whose number is in ``DRILL_KILLS`` kills its process the first time it runs, when it
has written its first row, or (an odd number) when it has committed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, signals
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from tests.support import SmallApplication
from tests.tasks.workers import configuration

home = Path(os.environ["TASKS_HOME"])
app = SmallApplication(("main",))
celery = Celery("drill")
broker = os.environ.get("TASKS_BROKER")
celery.conf.update(configuration(home, broker, broker))
celery.conf.worker_prefetch_multiplier = 8  # the task of a killed process keeps its place for 10 s
kills = {int(number) for number in os.environ.get("DRILL_KILLS", "").split()}
connect_celery(celery, app)

parents: dict[str, Session] = {}


class Base(DeclarativeBase):
    """Base of the two tables."""


class Half(Base):
    """The first row of a task, and who wrote it through which connection."""

    __tablename__ = "half"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    process: Mapped[int]
    connection: Mapped[int]


class Whole(Base):
    """The second row of a task."""

    __tablename__ = "whole"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    process: Mapped[int]
    connection: Mapped[int]


CONNECTION = sa.text("SELECT pg_backend_pid()")
ECHO = sa.text("SELECT :number, pg_backend_pid() FROM pg_sleep(0.002)")


@signals.worker_init.connect
def use_the_engine_before_the_fork(**_: Any) -> None:
    main = app.dbs["main"]
    parents["session"] = main.get_session()  # its connection is in use while the pool is forked
    (home / "parent").write_text(str(parents["session"].scalar(CONNECTION)))
    with main.session() as session:  # and this one waits in the engine's pool
        session.scalar(CONNECTION)


@signals.worker_ready.connect
def tell_that_it_is_ready(**_: Any) -> None:
    (home / "ready").touch()


@signals.worker_shutting_down.connect
def use_the_connection_of_before_the_fork(**_: Any) -> None:
    (home / "parent-at-the-end").write_text(str(parents["session"].scalar(CONNECTION)))


@celery.task(
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(sa.exc.OperationalError,),
    max_retries=None,
    default_retry_delay=0,
)
@WithDatabase(app, "main")
def write_two_rows(number: int, *, main: Session = INJECTED) -> int:
    """Write both rows, or neither; a task that is delivered twice writes them once."""
    if main.get(Whole, number) is not None:
        return number
    who = {"number": number, "process": os.getpid(), "connection": main.scalar(CONNECTION)}
    main.add(Half(**who))
    main.flush()
    if number % 2 == 0:
        die_once(number)
    # were the connection shared, the answer to another task's question could come here
    echo = tuple(main.execute(ECHO, {"number": number}).one())
    if echo != (number, who["connection"]):
        raise AssertionError(f"{number} asked and was answered {echo}")
    main.add(Whole(**who))
    main.commit()
    if number % 2:
        die_once(number)
    return number


def die_once(number: int) -> None:
    """Kill this process, if this is the first time that the task gets here."""
    if number in kills:
        try:
            (home / f"killed-{number}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
