"""WithDatabase on plain functions, without Celery."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from qapla_db.decorators import INJECTED, WithDatabase
from qapla_db.errors import Misuse, NotPrepared, UnknownDatabase
from tests.support import SmallApplication, make_application
from tests.tasks.model import Main, Note


@pytest.fixture
def app(each_url: sa.URL) -> Iterator[SmallApplication]:
    """An application with the table of notes, on each kind of engine in turn."""
    with make_application({"main": each_url}) as application:
        Main.metadata.create_all(application.dbs["main"].engine)
        yield application


@pytest.fixture
def postgresql_app(postgresql_database_url: sa.URL) -> Iterator[SmallApplication]:
    """The same on PostgreSQL alone."""
    with make_application({"main": postgresql_database_url}) as application:
        Main.metadata.create_all(application.dbs["main"].engine)
        yield application


@pytest.fixture
def small_app() -> Iterator[SmallApplication]:
    """An application with two databases in memory, for what no engine has a say in."""
    with make_application({"main": "sqlite://", "audit": "sqlite://"}) as application:
        Main.metadata.create_all(application.dbs["main"].engine)
        yield application


def texts(app: SmallApplication) -> list[str]:
    """Return what is stored."""
    with app.dbs["main"].session(read_only=True) as session:
        return list(session.scalars(sa.select(Note.text).order_by(Note.id)))


def checked_out(app: SmallApplication) -> int:
    """Count the connections in use."""
    pool = app.dbs["main"].engine.pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()


def test_a_commit_is_stored_and_the_session_closed(app: SmallApplication) -> None:
    """What the function commits is stored, and its session is of no more use."""
    used: list[Session] = []

    @WithDatabase(app, "main")
    def store(text: str, *, main: Session = INJECTED) -> int:
        used.append(main)
        main.add(Note(owner="me", text=text))
        main.commit()
        main.scalars(sa.select(Note)).all()
        return 42

    assert 42 == store("hello")
    assert ["hello"] == texts(app)
    assert 0 == checked_out(app)
    with pytest.raises(sa.exc.InvalidRequestError):
        used[0].scalars(sa.select(Note)).all()


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit])
def test_an_error_rolls_back_and_passes(app: SmallApplication, error: type[BaseException]) -> None:
    """The very error of the function arrives, whatever its kind, and nothing is stored."""
    mine = error("mine")

    @WithDatabase(app)
    def store(*, main: Session = INJECTED) -> None:
        main.add(Note(owner="me", text="lost"))
        main.flush()
        raise mine

    with pytest.raises(error) as caught:
        store()
    assert mine is caught.value
    assert [] == texts(app)
    assert 0 == checked_out(app)


def test_a_dead_connection_does_not_mask_the_error(postgresql_app: SmallApplication) -> None:
    """The function's error arrives although the rollback after it fails."""
    app = postgresql_app

    @WithDatabase(app)
    def store(*, main: Session = INJECTED) -> None:
        main.add(Note(owner="me", text="lost"))
        main.flush()
        pid = main.scalar(sa.text("SELECT pg_backend_pid()"))
        with app.dbs["main"].session() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        store()
    assert [] == texts(app)
    assert 0 == checked_out(app)


def test_a_forgotten_commit_is_warned_of_once(
    app: SmallApplication, caplog: pytest.LogCaptureFixture
) -> None:
    """Flushed or not, changes without a commit are lost and leave one warning."""

    @WithDatabase(app)
    def store(flush: bool, *, main: Session = INJECTED) -> None:
        main.add(Note(owner="me", text="lost"))
        if flush:
            main.flush()

    for flush in (True, False):
        with caplog.at_level(logging.WARNING, "qapla_db"):
            caplog.clear()
            store(flush)
        assert [] == texts(app)
        (record,) = caplog.records
        assert "store() ended with uncommitted changes in the database 'main'" in (
            record.getMessage()
        )


def test_who_commits_or_reads_is_not_warned(
    app: SmallApplication, caplog: pytest.LogCaptureFixture
) -> None:
    """No warning for a function that commits and reads on, or whose error tells enough."""

    @WithDatabase(app)
    def work(fail: bool, *, main: Session = INJECTED) -> None:
        main.add(Note(owner="me", text="kept"))
        main.commit()
        main.scalars(sa.select(Note)).all()
        if fail:
            main.add(Note(owner="me", text="lost"))
            raise LookupError

    with caplog.at_level(logging.WARNING, "qapla_db"):
        work(False)
        with pytest.raises(LookupError):
            work(True)
    assert [] == caplog.records
    assert ["kept", "kept"] == texts(app)


def test_an_unused_session_needs_no_server() -> None:
    """A call that does not touch its session connects nowhere."""
    with make_application({"main": "postgresql://nobody@127.0.0.1:1/nothing"}) as app:

        @WithDatabase(app)
        def add(one: int, other: int, *, main: Session = INJECTED) -> int:
            return one + other

        assert 5 == add(2, 3)


def test_a_lent_session_is_left_alone(app: SmallApplication) -> None:
    """A lent session is used, and neither closed, committed nor rolled back, even on an error."""

    @WithDatabase(app)
    def store(text: str, *, main: Session = INJECTED) -> Note:
        note = Note(owner="me", text=text)
        main.add(note)
        main.flush()
        if text == "fail":
            raise LookupError
        return note

    with app.dbs["main"].session() as session:
        assert store("one", main=session) in session
        with pytest.raises(LookupError):
            store("fail", main=session)
        assert session.in_transaction()
        session.commit()
    assert ["one", "fail"] == texts(app)
    with Session(app.dbs["main"].engine) as plain:
        store("plain", main=plain)
        plain.rollback()
    assert ["one", "fail"] == texts(app)


def test_nested_calls_have_sessions_of_their_own(postgresql_app: SmallApplication) -> None:
    """An inner call sees what the outer one did not commit only if it is lent the session."""

    @WithDatabase(postgresql_app)
    def count(*, main: Session = INJECTED) -> int:
        return len(main.scalars(sa.select(Note)).all())

    @WithDatabase(postgresql_app)
    def outer(*, main: Session = INJECTED) -> tuple[int, int]:
        main.add(Note(owner="me", text="one"))
        main.flush()
        found = count(), count(main=main)
        main.commit()
        return found

    assert (0, 1) == outer()
    assert ["one"] == texts(postgresql_app)


@pytest.mark.parametrize("wrong", [None, "main", 1, Session], ids=repr)
def test_only_a_session_can_be_lent(small_app: SmallApplication, wrong: Any) -> None:
    """Something else in place of the session is refused before the function runs."""

    @WithDatabase(small_app)
    def fail(*, main: Session = INJECTED) -> None:
        raise AssertionError("it ran")

    with pytest.raises(Misuse, match=r"fail\(\) was called with main= of the type"):
        fail(main=wrong)


def test_a_session_of_another_database_cannot_be_lent(small_app: SmallApplication) -> None:
    """A session of ours that belongs elsewhere is refused, and both databases are named."""

    @WithDatabase(small_app)
    def fail(*, main: Session = INJECTED) -> None:
        raise AssertionError("it ran")

    with small_app.dbs["audit"].session() as audit:
        with pytest.raises(Misuse, match=r"main= of the database 'audit', but works on 'main'"):
            fail(main=audit)


def test_passing_on_the_default_is_asking_for_a_session(small_app: SmallApplication) -> None:
    """A caller with the same default can pass it on."""

    @WithDatabase(small_app)
    def inner(*, main: Session = INJECTED) -> bool:
        return isinstance(main, Session)

    def outer(main: Session = INJECTED) -> bool:
        return inner(main=main)

    assert outer()


def test_the_parameter_may_stand_anywhere(small_app: SmallApplication) -> None:
    """Positional arguments fill the other parameters, wherever the session's stands."""

    @WithDatabase(small_app)
    def first(main: Session, x: int, y: int = 2) -> tuple[bool, int, int]:
        return isinstance(main, Session), x, y

    @WithDatabase(small_app)
    def middle(x: int, main: Session, *rest: int, y: int = 2) -> tuple[bool, Any, int]:
        return isinstance(main, Session), (x, *rest), y

    call: Any = first
    assert (True, 1, 2) == call(1)
    assert (True, 1, 3) == call(1, 3)
    assert (True, 1, 3) == call(y=3, x=1)
    call = middle
    assert (True, (1,), 2) == call(1)
    assert (True, (1, 5, 6), 7) == call(1, 5, 6, y=7)


def test_stacked_databases(small_app: SmallApplication) -> None:
    """Each decorator of a stack gives the session of its database, one of them lent or none."""

    @WithDatabase(small_app, "main")
    @WithDatabase(small_app, "audit", param="log")
    def both(x: int, main: Session, log: Session, y: int = 0) -> tuple[Any, ...]:
        return x, y, main.get_bind(), log.get_bind(), id(main)

    call: Any = both
    main, audit = small_app.dbs["main"].engine, small_app.dbs["audit"].engine
    assert (1, 2, main, audit) == call(1, 2)[:4]
    with small_app.dbs["main"].session() as session:
        assert (1, 0, main, audit, id(session)) == call(1, main=session)
    assert ["x", "y"] == list(inspect.signature(both).parameters)


def test_the_function_looks_as_it_was(small_app: SmallApplication) -> None:
    """Name, module, docstring and signature are the function's, but for the session."""

    def add(x: int, y: int = 2, *, main: Session = INJECTED) -> int:
        """Add two numbers."""
        return x + y

    decorated = WithDatabase(small_app)(add)
    assert ("add", add.__module__, "Add two numbers.") == (
        decorated.__name__,
        decorated.__module__,
        decorated.__doc__,
    )
    assert add.__qualname__ == decorated.__qualname__
    assert "(x: 'int', y: 'int' = 2) -> 'int'" == str(inspect.signature(decorated))
    assert {"x": "int", "y": "int", "return": "int"} == decorated.__annotations__
    assert {"x", "y", "main", "return"} == set(add.__annotations__)
    assert 5 == decorated(3)
    with pytest.raises(TypeError, match="add"):
        decorated()  # type: ignore[call-arg]


def test_methods(small_app: SmallApplication) -> None:
    """Methods, static methods and class methods can be decorated."""

    class Work:
        factor = 2

        @WithDatabase(small_app)
        def method(self, x: int, *, main: Session = INJECTED) -> int:
            return self.factor * x * isinstance(main, Session)

        @classmethod
        @WithDatabase(small_app)
        def of_class(cls, x: int, *, main: Session = INJECTED) -> int:
            return cls.factor * x * isinstance(main, Session)

        @staticmethod
        @WithDatabase(small_app)
        def static(x: int, *, main: Session = INJECTED) -> int:
            return x * isinstance(main, Session)

    assert (6, 6, 3) == (Work().method(3), Work.of_class(3), Work.static(3))


def test_the_database_is_looked_up_when_the_function_is_called() -> None:
    """Decorating needs no preparation; a call before it, or of an unknown database, says so."""
    app = SmallApplication()

    @WithDatabase(app, "main")
    def known(*, main: Session = INJECTED) -> bool:
        return isinstance(main, Session)

    @WithDatabase(app, "audit")
    def unknown(*, audit: Session = INJECTED) -> None: ...

    with pytest.raises(NotPrepared) as caught:
        known()
    assert ["In a Celery worker connect_celery(celery_app, app) prepares it."] == (
        caught.value.__notes__
    )
    with app:
        app.prepare("command", {"db:main:url": "sqlite://"})
        assert known()
        with pytest.raises(UnknownDatabase, match="no database is named 'audit'"):
            unknown()


def _note(session: Session) -> Note:
    note = Note(owner="me", text="x")
    session.add(note)
    session.flush()
    return note


BOUND: dict[str, Callable[[Session], Any]] = {
    "object": _note,
    "new object": lambda session: Note(owner="me", text="x"),
    "list of objects": lambda session: [1, _note(session)],
    "tuple of objects": lambda session: (_note(session),),
    "set of objects": lambda session: {_note(session)},
    "dict of objects": lambda session: {"note": _note(session)},
    "row with an object": lambda session: (
        _note(session) and session.execute(sa.select(Note.id, Note)).first()
    ),
    "rows with objects": lambda session: (
        _note(session) and session.execute(sa.select(Note.id, Note)).all()
    ),
    "mappings with objects": lambda session: (
        _note(session) and session.execute(sa.select(Note)).mappings().all()
    ),
    "query": lambda session: session.query(Note),
    "result": lambda session: session.execute(sa.select(Note)),
    "scalars": lambda session: session.scalars(sa.select(Note)),
    "mappings": lambda session: session.execute(sa.select(Note)).mappings(),
    "session": lambda session: session,
    "connection": lambda session: session.connection(),
    "generator": lambda session: (note for note in session.scalars(sa.select(Note))),
}


@pytest.mark.parametrize("kind", BOUND)
def test_what_ends_with_the_session_cannot_be_returned(
    small_app: SmallApplication, kind: str
) -> None:
    """Each such result is an error that says what to return; unless the check is off."""

    def work(*, main: Session = INJECTED) -> Any:
        main.add(Note(owner="me", text="kept"))
        main.commit()
        return BOUND[kind](main)

    with pytest.raises(Misuse, match=r"work\(\) returned \w+, .* return plain values"):
        WithDatabase(small_app)(work)()
    assert "kept" in texts(small_app)
    WithDatabase(small_app, check_result=False)(work)()


@pytest.mark.filterwarnings("error")
def test_a_hidden_coroutine_is_found_at_the_latest_when_it_is_returned(
    small_app: SmallApplication,
) -> None:
    """An async function behind another decorator is not taken for a result."""

    async def work(main: Session) -> int:
        return 1

    def through(*, main: Session = INJECTED) -> Any:
        return work(main)

    with pytest.raises(Misuse, match="returned coroutine"):
        WithDatabase(small_app)(through)()


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [1, [2]], {"a": (1,)}, {3}, 1.5, object()])
def test_plain_results_pass(small_app: SmallApplication, value: object) -> None:
    """Whatever does not depend on the session is returned as it is."""

    @WithDatabase(small_app)
    def work(*, main: Session = INJECTED) -> object:
        return value

    assert value is work()


def test_rows_of_plain_values_pass(small_app: SmallApplication) -> None:
    """Rows that hold no objects can be returned, in a list too."""

    @WithDatabase(small_app)
    def work(*, main: Session = INJECTED) -> Any:
        return main.execute(sa.text("SELECT 1, 'x'")).all()

    assert [(1, "x")] == work()


def test_an_object_of_a_lent_session_passes(small_app: SmallApplication) -> None:
    """A function that is lent one session and given another may return the lender's object."""

    @WithDatabase(small_app, "main")
    @WithDatabase(small_app, "audit")
    def find(*, main: Session = INJECTED, audit: Session = INJECTED) -> Note:
        return main.scalars(sa.select(Note)).one()

    with small_app.dbs["main"].session() as session:
        note = _note(session)
        assert note is find(main=session)
