# mypy: disable-error-code="untyped-decorator, misc"
"""What cannot work is a TypeError when the function is decorated."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import celery
import pytest
from celery import Celery
from sqlalchemy.orm import Session

from qapla_db import DatabaseMixin
from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from qapla_db.errors import Misuse
from tests.support import SmallApplication

app = SmallApplication()
celery_app = Celery("misuse", set_as_current=False)
give_main: Callable[[Any], Any] = WithDatabase(app, "main")


def plain(*, main: Session = INJECTED) -> None: ...


async def coroutine(*, main: Session = INJECTED) -> None: ...


def generator(*, main: Session = INJECTED) -> Iterator[int]:
    yield 1


async def async_generator(*, main: Session = INJECTED) -> AsyncIterator[int]:
    yield 1


def without(x: int) -> None: ...


def only_rest(*main: int, **kwargs: int) -> None: ...


def only_kwargs(**main: int) -> None: ...


def positional_only(main: Session, /) -> None: ...


class Work:
    def __call__(self, main: Session) -> None: ...


def finalized_task() -> Any:
    other = Celery("finalized", set_as_current=False)
    task = other.task(plain)
    other.finalize(auto=True)
    return other.tasks[task.name]


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "above a lazy task": (lambda: celery_app.task(plain), "put it under it, directly above"),
    "above a task": (finalized_task, "put it under it, directly above"),
    "above a shared task": (lambda: celery.shared_task(plain), "put it under it, directly above"),
    "async": (lambda: coroutine, r"coroutine\(\) is async .* make it a plain function"),
    "generator": (lambda: generator, r"generator\(\) is a generator .* return a list"),
    "async generator": (lambda: async_generator, r"async_generator\(\) is async"),
    "no such parameter": (lambda: without, r"without\(\) has no parameter 'main' .* add '\*, main"),
    "only *args": (lambda: only_rest, r"only_rest\(\) has no parameter 'main'"),
    "only **kwargs": (lambda: only_kwargs, r"only_kwargs\(\) has no parameter 'main'"),
    "positional-only": (lambda: positional_only, "positional-only, .* move it behind the '/'"),
    "above staticmethod": (lambda: staticmethod(plain), "put it under @staticmethod"),
    "above classmethod": (
        lambda: classmethod(lambda cls, *, main: None),
        "put it under @classmethod",
    ),
    "class": (lambda: Work, "above the class Work .* above the method that does the work"),
    "callable object": (Work, "write a function with def"),
    "partial": (lambda: functools.partial(plain), "write a function with def"),
    "no function": (lambda: 42, "decorates functions, not 42"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_decorated(case: str) -> None:
    """The decorator refuses at once, as a TypeError, and says what to do."""
    make, message = WRONG[case]
    target = make()
    with pytest.raises(TypeError, match=message) as caught:
        give_main(target)
    assert isinstance(caught.value, Misuse)


def test_a_database_is_given_once() -> None:
    """The same database twice is refused, whatever the parameters are; another's is not."""

    def work(main: Session, second: Session) -> None: ...

    once = WithDatabase(app, "main")(work)
    with pytest.raises(Misuse, match="'main' twice; remove one @WithDatabase"):
        WithDatabase(app, "main", param="second")(once)
    WithDatabase(SmallApplication(), "main", param="second")(once)


def test_a_parameter_takes_one_session() -> None:
    """Two databases cannot share a parameter."""
    once = WithDatabase(app, "main", param="session")(lambda *, session: None)
    with pytest.raises(Misuse, match="takes the session of the database 'main' already"):
        WithDatabase(app, "audit", param="session")(once)


@pytest.mark.parametrize("wrong", [lambda: None, "main", SmallApplication], ids=str)
def test_the_application_comes_first(wrong: Any) -> None:
    """The decorator without its arguments, or with others, is refused."""
    with pytest.raises(Misuse, match=r"write @WithDatabase\(app, 'main'\)"):
        WithDatabase(wrong)


@pytest.mark.parametrize(
    "arguments", [("1st",), ("main", "a-b"), ("main", "class"), (app,)], ids=str
)
def test_a_parameter_has_a_name(arguments: tuple[Any, ...]) -> None:
    """What cannot be the name of a parameter is refused."""
    with pytest.raises(Misuse, match="no name of a parameter"):
        WithDatabase(app, arguments[0], param=None if len(arguments) == 1 else arguments[1])


def test_connect_celery_takes_celery_first() -> None:
    """Exchanged arguments are told."""
    with pytest.raises(Misuse, match=r"write connect_celery\(celery_app, app\)"):
        connect_celery(app, celery_app)


@pytest.mark.parametrize("wrong", [None, "app", SmallApplication, celery_app], ids=str)
def test_connect_celery_takes_an_application(wrong: Any) -> None:
    """What has no databases and cannot be prepared is refused."""
    with pytest.raises(Misuse, match=r"neither prepare\(\) nor dbs; write connect_celery"):
        connect_celery(Celery("refused", set_as_current=False), wrong)


def test_connect_celery_takes_a_host_of_another_make() -> None:
    """A host that registers its databases later, and one that gets them by prepare(), will do."""

    class Later(DatabaseMixin):
        settings: dict[str, str] = {}

    class Preparable:
        def prepare(self, endpoint: str) -> None: ...

    for host in (Later(), Preparable()):
        connect_celery(Celery("accepted", set_as_current=False), host)  # type: ignore[arg-type]


def test_a_lazy_task_stays_lazy() -> None:
    """Looking at a task that is not registered yet does not register it."""
    late = Celery("late", set_as_current=False, autofinalize=False)
    task = late.task(plain)
    with pytest.raises(Misuse):
        give_main(task)
    assert not late.finalized
