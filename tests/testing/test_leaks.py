"""What a test leaves behind is its own failure, with who left it and where."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import Leak
from qapla_db.testing import sandbox
from qapla_db.testing.leaks import Watch
from tests.support import make_application
from tests.testing.test_fixture import project, run

__all__ = ["project"]


@pytest.fixture
def watch() -> Iterator[Watch]:
    found = Watch()
    yield found
    found.close()


@pytest.fixture
def main(each_url: sa.URL) -> Iterator[Database]:
    """An empty database, on each kind of engine in turn."""
    app = make_application({"main": each_url})
    yield app.dbs["main"]
    app.close()


def test_nothing_left(main: Database, watch: Watch) -> None:
    """What is given back, and ended, is no leak; nor is what was there before."""
    earlier = main.get_session(read_only=True)
    earlier.execute(sa.text("SELECT 0"))

    def work() -> None:
        with main.session() as session:
            session.execute(sa.text("SELECT 1"))

    with watch.nothing_left([main]):
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    earlier.close()


@pytest.mark.parametrize("isolated", [False, True])
def test_session(main: Database, watch: Watch, isolated: bool) -> None:
    """A session that is left open is named: line, thread, process and last statement."""
    session = main.get_session()

    def block() -> None:
        with watch.nothing_left([main]):
            session.execute(sa.text("SELECT 1"))
            session.execute(sa.text("SELECT 2 -- the last, PASSWORD 'hunter2'"))
            if main.backend.name == "postgresql":
                pids.append(
                    session.scalar(
                        sa.text("SELECT pg_backend_pid() -- the last, PASSWORD 'hunter2'")
                    )
                )

    pids: list[object] = []
    with (
        sandbox(main) if isolated else nullcontext(),
        pytest.raises(AssertionError, match="connection of the database 'main'") as info,
    ):
        block()
    session.close()
    assert isinstance(info.value, Leak)
    message = str(info.value)
    assert "test_leaks.py" in message
    assert "in block in the thread 'MainThread'" in message
    assert "-- the last, PASSWORD '***'" in message
    for pid in pids:
        assert f"(process {pid} on the server)" in message
    assert 1 == message.count("\n")
    with watch.nothing_left([main]):
        pass


def test_other_database(main: Database, watch: Watch) -> None:
    """Connections of engines that nobody asked about are not looked at."""
    other = sa.create_engine("sqlite://")
    with watch.nothing_left([main]):
        connection = other.connect()
    connection.close()


def test_thread(main: Database, watch: Watch) -> None:
    """A thread that goes on is named with what it runs and where, unless it is allowed to."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(60,), name="engine-room")
    told = (
        r"the thread 'engine-room', which runs threading\.Event\.wait and is at "
        r"\S+threading\.py:\d+ in wait\. .*ALLOWED_THREADS"
    )
    with pytest.raises(Leak, match=told):
        with watch.nothing_left([main]):
            thread.start()
    second = threading.Thread(target=end.wait, args=(60,), name="engine-room-2")
    with watch.nothing_left([main], allowed_threads=["engine"]):
        second.start()
    end.set()
    thread.join()
    second.join()


def test_thread_that_is_ending(main: Database, watch: Watch) -> None:
    """A thread that gives its connection back a moment later is waited for."""
    has_it, end = threading.Event(), threading.Event()

    def work() -> None:
        with main.session() as session:
            session.execute(sa.text("SELECT 1"))
            has_it.set()
            end.wait(60)

    thread = threading.Thread(target=work)
    timer = threading.Timer(0.05, end.set)
    with watch.nothing_left([main], allowed_threads=[timer.name]):
        thread.start()
        has_it.wait(60)
        timer.start()
    assert end.is_set()
    thread.join()
    timer.join()


def test_error_passes(main: Database, watch: Watch) -> None:
    """What the block raises is what is seen."""
    session = main.get_session()

    def block() -> None:
        with watch.nothing_left([main]):
            session.execute(sa.text("SELECT 1"))
            raise LookupError

    with pytest.raises(LookupError):
        block()
    session.close()


def test_in_classes(project: pytest.Pytester) -> None:
    """Of two tests the one that leaves a session and a thread behind fails, and the other not."""
    result = run(
        project,
        """
        import threading

        end = threading.Event()

        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_first(self, dbsession):
                dbsession.query(Ship).all()

            def test_leaks(self, application):
                self.left = application.dbs["main"].get_session()
                self.left.add(Ship(name="left"))
                self.left.flush()
                threading.Thread(target=end.wait, args=(60,), name="worker", daemon=True).start()

            def test_last(self, dbsession):
                assert [] == dbsession.query(Ship).all()

        class TestTwo(BaseApplicationFixture):
            APP_CLASS = OneApplication
            ALLOWED_THREADS = ("worker",)

            def test_allowed(self):
                threading.Thread(target=end.wait, args=(60,), name="worker", daemon=True).start()
        """,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestOne.test_leaks*"])
    text = result.stdout.str()
    assert "a connection of the database 'main', taken by" in text
    assert "its last statement: INSERT INTO ship" in text
    assert "the thread 'worker', which runs threading.Event.wait and is at" in text
