# mypy: allow-subclassing-any, disable-error-code="untyped-decorator"
"""What Celery sees of a decorated task, in the process that sends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import celery
import pytest
import sqlalchemy as sa
from celery import Celery, Task, shared_task
from pydantic import BaseModel

from qapla_db.decorators import INJECTED, WithDatabase
from qapla_db.errors import Misuse, NotPrepared
from tests.support import SmallApplication
from tests.tasks.model import Main, Note

if TYPE_CHECKING:  # so that nothing of Celery's or pydantic's can look it up
    from sqlalchemy.orm import Session

app = SmallApplication()
celery_app = Celery("tests.tasks.test_celery_tasks", broker="memory://", set_as_current=False)
celery_app.conf.task_store_eager_result = False


class Order(BaseModel):
    """What is ordered."""

    count: int


@celery_app.task
@WithDatabase(app)
def add(x: int, y: int = 2, *, main: Session = INJECTED) -> int:
    """Add two numbers."""
    assert main.scalar(sa.text("SELECT 1")) == 1
    return x + y


@celery_app.task(bind=True)
@WithDatabase(app)
def bound(self: Any, x: int, main: Session = INJECTED) -> list[Any]:
    return [self.name, x, main.scalar(sa.text("SELECT 1"))]


@celery_app.task(pydantic=True)
@WithDatabase(app)
def order(what: Order, *, main: Session = INJECTED) -> Order:
    return Order(count=what.count + (main.scalar(sa.text("SELECT 1")) or 0))


@celery_app.task
@WithDatabase(app)
def return_note(*, main: Session = INJECTED) -> Any:
    note = Note(owner="me", text="x")
    main.add(note)
    main.commit()
    return note


@celery_app.task(autoretry_for=(LookupError,), retry_kwargs={"countdown": 0, "max_retries": 3})
@WithDatabase(app)
def third_time_lucky(tries: list[int], *, main: Session = INJECTED) -> int:
    tries.append(id(main))
    if len(tries) < 3:
        raise LookupError
    return len(tries)


@shared_task
@WithDatabase(app)
def shared(x: int, *, main: Session = INJECTED) -> int:
    return x + (main.scalar(sa.text("SELECT 1")) or 0)


class Add(Task):
    """A task that is a class."""

    name = "Add"

    @WithDatabase(app)
    def run(self, x: int, *, main: Session = INJECTED) -> int:
        return x + (main.scalar(sa.text("SELECT 1")) or 0)


add_by_class = celery_app.register_task(Add())


@pytest.fixture
def prepared() -> Iterator[SmallApplication]:
    """The tasks' application, prepared anew for each test on a database in memory."""
    app.__init__()  # type: ignore[misc]
    with app:
        app.prepare("tests", {"db:main:url": "sqlite://"})
        Main.metadata.create_all(app.dbs["main"].engine)
        yield app


def test_wrong_arguments_fail_when_the_task_is_sent() -> None:
    """delay() checks the arguments as without the decorator, and knows no session."""
    for wrong in ((), (1, 2, 3)):
        with pytest.raises(TypeError, match="positional argument"):
            add.delay(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'main'"):
        add.delay(1, main=2)
    with pytest.raises(TypeError, match="positional argument"):
        bound.delay()


def test_sending_needs_no_preparation() -> None:
    """A process that only sends tasks need not prepare the application."""
    app.__init__()  # type: ignore[misc]
    add.delay(1)
    with celery_app.connection_for_read() as connection:
        with connection.SimpleQueue("celery") as queue:
            body, *_ = queue.get(timeout=5).decode()
    assert [1] == body
    assert "created" == app.phase
    with pytest.raises(NotPrepared):
        add(1)


def test_the_name_of_the_task_is_the_function_s() -> None:
    """Celery names and documents the task by the function."""
    assert "tests.tasks.test_celery_tasks.add" == add.name
    assert "Add two numbers." == add.__doc__


def test_direct_and_eager_calls(prepared: SmallApplication) -> None:
    """A task called directly or eagerly uses what its process has prepared."""
    assert 3 == add(1)
    assert 3 == add.apply((1,)).get()
    assert [bound.name, 5, 1] == bound(5)
    assert [bound.name, 5, 1] == bound.apply((5,)).get()
    assert 3 == shared(2) == shared.apply((2,)).get()
    assert 3 == add_by_class(2) == add_by_class.apply((2,)).get()
    with prepared.dbs["main"].session() as session:
        assert 3 == add(1, main=session)
        assert [bound.name, 5, 1] == bound(5, main=session)
        assert session.in_transaction()


@pytest.mark.skipif(celery.VERSION < (5, 5), reason="this Celery has no pydantic tasks")
def test_pydantic_tasks(prepared: SmallApplication) -> None:
    """The models of a pydantic task are made and dumped, and the session is none of them."""
    assert {"count": 3} == order({"count": 2}) == order.apply(({"count": 2},)).get()


def test_an_object_is_refused_in_an_eager_call_too(prepared: SmallApplication) -> None:
    """What a worker could not send back fails in the tests of an application as well."""
    with pytest.raises(Misuse, match="return plain values"):
        return_note.apply(throw=True)


def test_automatic_retries_have_a_new_session_each(prepared: SmallApplication) -> None:
    """autoretry_for sees the task's error, and each try runs in a session of its own."""
    tries: list[int] = []
    assert 3 == third_time_lucky.apply((tries,)).get()
