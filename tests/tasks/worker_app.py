# mypy: allow-subclassing-any, disable-error-code="untyped-decorator"
"""A Celery application for real workers; what it uses is in the environment.

``TASKS_HOME`` is a directory for messages, results and the journal, ``TASKS_BROKER`` a
broker with a server, ``TASKS_PARENT_USES_DATABASE`` makes the worker's main process use
the engine before the pool exists, ``TASKS_START_METHOD`` is that of the pool's processes,
and ``TASKS_ENDPOINT`` one that the import of this module prepares the application for.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery, Task, shared_task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pydantic import BaseModel
from sqlalchemy.orm import Session

from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from tests.support import SmallApplication
from tests.tasks.model import Mark, Note
from tests.tasks.workers import configuration

home = Path(os.environ["TASKS_HOME"])


class Journal:
    """A plugin that writes down where it is prepared and closed."""

    def prepare_app(self, app: SmallApplication) -> None:
        self.write(f"prepared for {app.endpoint}")

    def close(self) -> None:
        self.write("closed")

    def write(self, what: str) -> None:
        with (home / "journal").open("a") as file:
            file.write(f"{os.getpid()} {what}\n")


class WorkerApplication(SmallApplication):
    """Two databases, and a journal of its life."""

    def append_app_plugins(self) -> None:
        super().append_app_plugins()
        self.add_plugin(Journal())


app = WorkerApplication(("main", "audit"))
celery = Celery("tests")
celery.conf.update(configuration(home, os.environ.get("TASKS_BROKER")))
if "TASKS_START_METHOD" in os.environ:
    celery.conf.worker_pool_start_method = os.environ["TASKS_START_METHOD"]
if "TASKS_ENDPOINT" in os.environ:
    app.prepare(os.environ["TASKS_ENDPOINT"])
connect_celery(celery, app)
connect_celery(celery, app)  # as when a module is imported under two names

stranger = Celery("stranger", set_as_current=False)
stranger.conf.update(configuration(home, os.environ.get("TASKS_BROKER")))

parent: dict[str, Any] = {"pid": None, "session": None}
patience = threading.Event()


@signals.worker_init.connect
def use_database_before_the_fork(**_: Any) -> None:
    if os.environ.get("TASKS_PARENT_USES_DATABASE"):
        main = app.dbs["main"]
        parent["session"] = main.get_session()  # its connection is in use while the pool is forked
        parent["pid"] = _connection_id(parent["session"])
        with main.session() as session:  # and this one waits in the engine's pool
            session.scalars(sa.select(Note)).all()


@signals.worker_ready.connect
def tell_that_it_is_ready(**_: Any) -> None:
    (home / "ready").touch()


@signals.beat_init.connect
def tell_that_beat_is_ready(**_: Any) -> None:
    (home / "ready").touch()


def _connection_id(session: Session) -> int:
    dialect = session.get_bind().dialect.name
    if dialect == "sqlite":
        return id(session.connection().connection.dbapi_connection)
    function = "pg_backend_pid()" if dialect == "postgresql" else "connection_id()"
    return int(session.scalar(sa.text(f"SELECT {function}")) or 0)


@celery.task
@WithDatabase(app, "main")
def store(owner: str, text: str, *, main: Session = INJECTED) -> int:
    note = Note(owner=owner, text=text)
    main.add(note)
    main.commit()
    return note.id


@celery.task
@WithDatabase(app, "main")
def store_and_fail(owner: str, text: str, *, main: Session = INJECTED) -> None:
    main.add(Note(owner=owner, text=text))
    main.flush()
    raise LookupError(f"no such thing as {text}")


@celery.task
@WithDatabase(app, "main")
def store_and_forget(owner: str, text: str, *, main: Session = INJECTED) -> str:
    main.add(Note(owner=owner, text=text))
    main.flush()
    return "done"


@celery.task(bind=True, max_retries=5)
@WithDatabase(app, "main")
def store_at_third_try(self: Any, owner: str, *, main: Session = INJECTED) -> None:
    seen = main.scalars(sa.select(Note).where(Note.owner == owner)).all()
    main.add(Note(owner=owner, text=f"try {self.request.retries} saw {len(seen)}"))
    main.flush()
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    main.commit()


@celery.task
@WithDatabase(app, "main")
def store_and_ignore(owner: str, *, main: Session = INJECTED) -> None:
    main.add(Note(owner=owner, text="ignored"))
    main.flush()
    raise Ignore


@celery.task(acks_late=True)
@WithDatabase(app, "main")
def store_and_reject(owner: str, *, main: Session = INJECTED) -> None:
    main.add(Note(owner=owner, text="rejected"))
    main.flush()
    raise Reject("no", requeue=False)


@celery.task
@WithDatabase(app, "main")
@WithDatabase(app, "audit")
def store_in_both(
    owner: str, *, main: Session = INJECTED, audit: Session = INJECTED
) -> dict[str, int]:
    note, mark = Note(owner=owner, text="both"), Mark(owner=owner, text="both")
    main.add(note)
    audit.add(mark)
    main.commit()
    audit.commit()
    return {"main": note.id, "audit": mark.id}


@celery.task
@WithDatabase(app, "main")
def return_object(owner: str, *, main: Session = INJECTED) -> Any:
    note = Note(owner=owner, text="returned")
    main.add(note)
    main.commit()
    return [note]


@celery.task
@WithDatabase(app, "main")
def misbehave(owner: str, kind: str, *, main: Session = INJECTED) -> str:
    """End in one of the ways that spoil a session for whoever uses it next."""
    main.add(Note(owner=owner, text=kind))
    main.flush()
    if kind == "broken statement":
        main.execute(sa.text("SELECT nonsense FROM nowhere"))
    if kind == "swallowed error":
        try:
            main.execute(sa.text("SELECT nonsense FROM nowhere"))
        except sa.exc.DBAPIError:
            return "swallowed"
    if kind == "left open":
        return "left open"
    main.commit()
    return "stored"


@celery.task
@WithDatabase(app, "main")
def whose_connection(*, main: Session = INJECTED) -> dict[str, Any]:
    found = {"process": os.getpid(), "connection": _connection_id(main), "parent": parent["pid"]}
    main.rollback()
    return {**found, "endpoint": app.endpoint, "phase": app.phase}


@celery.task
def checked_out() -> int:
    """Count the connections that stay checked out in this process."""
    deadline = time.monotonic() + 5
    while (count := _count_checked_out()) and time.monotonic() < deadline:
        patience.wait(0.02)  # a task that is ending now may still hold one
    return count


def _count_checked_out() -> int:
    pools = [database.engine.pool for database in app.dbs.values()]
    return sum(pool.checkedout() for pool in pools if isinstance(pool, sa.QueuePool))


class StoreTask(Task):
    """A task that is a class."""

    name = "tests.tasks.worker_app.StoreTask"

    @WithDatabase(app, "main")
    def run(self, owner: str, *, main: Session = INJECTED) -> int:
        main.add(Note(owner=owner, text="class"))
        main.commit()
        return int(main.scalar(sa.select(sa.func.count()).where(Note.owner == owner)) or 0)


celery.register_task(StoreTask())


@shared_task
@WithDatabase(app, "main")
def store_shared(owner: str, *, main: Session = INJECTED) -> int:
    main.add(Note(owner=owner, text="shared"))
    main.commit()
    return int(main.scalar(sa.select(sa.func.count()).where(Note.owner == owner)) or 0)


class Order(BaseModel):
    """What a pydantic task takes and returns."""

    owner: str
    count: int


@celery.task(pydantic=True)
@WithDatabase(app, "main")
def store_order(order: Order, *, main: Session = INJECTED) -> Order:
    main.add_all(Note(owner=order.owner, text="order") for _ in range(order.count))
    main.commit()
    found = main.scalar(sa.select(sa.func.count()).where(Note.owner == order.owner))
    return Order(owner=order.owner, count=int(found or 0))


@celery.task(soft_time_limit=1, time_limit=30)
@WithDatabase(app, "main")
def sleep_in_a_statement(owner: str, *, main: Session = INJECTED) -> str:
    """Lock the owner's rows and sleep at the server until the soft time limit."""
    _lock_and_sleep(main, owner, 20)
    return "slept"


@celery.task(soft_time_limit=1, time_limit=30)
@WithDatabase(app, "main")
def clean_up_after_a_statement(owner: str, *, main: Session = INJECTED) -> str:
    """Do what the documentation of Celery says: catch the limit, clean up, end well."""
    try:
        _lock_and_sleep(main, owner, 20)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


@celery.task(time_limit=1)
@WithDatabase(app, "main")
def sleep_until_killed(owner: str, *, main: Session = INJECTED) -> str:
    _lock_and_sleep(main, owner, 20)
    return "slept"


def _lock_and_sleep(session: Session, owner: str, seconds: float) -> None:
    session.execute(sa.update(Note).where(Note.owner == owner).values(text="locked"))
    (home / f"locked-{owner}").touch()
    function = {"postgresql": "pg_sleep", "mysql": "sleep", "mariadb": "sleep"}
    name = function[session.get_bind().dialect.name]
    session.execute(sa.text(f"SELECT {name}(:seconds)"), {"seconds": seconds})
