"""SQLite: nothing is lost between threads, and nobody waits for himself."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database, Session
from qapla_db.errors import SessionConflict
from tests.support import WAIT, make_application

READ = sa.text("SELECT n FROM counter")
WRITE = sa.text("UPDATE counter SET n = n + 1")

HERE = os.path.basename(__file__)


def make(url: str, names: tuple[str, ...] = ("main",), settings: Any = None) -> Any:
    """An application with databases at one URL, which hold a counter."""
    app = make_application(dict.fromkeys(names, url), settings=settings)
    with app.dbs[names[0]].transaction() as session:
        session.execute(sa.text("CREATE TABLE counter (n INTEGER)"))
        session.execute(sa.text("INSERT INTO counter VALUES (0)"))
    return app


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'counter.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with make(url) as app:
        yield app.dbs["main"]


def in_thread(function: Callable[[], object]) -> object:
    """What a function returns or raises in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(WAIT)


# --- nothing is lost


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_threads_lose_nothing(url: str, kind: str) -> None:
    """Eight threads that read, compute and write forty times each lose no update."""

    def count() -> None:
        for _ in range(40):
            with counted.transaction() as session:
                value = session.scalar(READ)
                session.execute(sa.text("UPDATE counter SET n = :n"), {"n": value + 1})

    with make(url if kind == "file" else "sqlite://") as app:
        counted = app.dbs["main"]
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(count) for _ in range(8)]:
                future.result(60)
        with counted.session() as session:
            assert 8 * 40 == session.scalar(READ)


def test_threads_that_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Threads that are the first to connect do not get in each other's way."""
    for number in range(5):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        barrier = threading.Barrier(8)

        def connect(url: str = url, barrier: threading.Barrier = barrier) -> None:
            open_at_once(url, barrier)

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(connect) for _ in range(8)]:
                future.result(WAIT)


def open_at_once(url: str, barrier: Any) -> None:
    """Be one of those who are the first to connect."""
    with make_application({"main": url}) as app:
        barrier.wait(WAIT)
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("CREATE TABLE IF NOT EXISTS t (n INTEGER)"))


def open_files_at_once(directory: str, rounds: int, barrier: Any) -> None:
    """Be one of those processes, for several files."""
    for number in range(rounds):
        open_at_once(f"sqlite:///{directory}/{number}.db", barrier)


def test_processes_that_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Processes that are the first to connect do not get in each other's way."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    arguments = (str(tmp_path), 30, barrier)
    processes = [context.Process(target=open_files_at_once, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [0] * 6 == [process.exitcode for process in processes]


def test_new_file_while_another_program_writes(tmp_path: Path) -> None:
    """Who opens a file in which another program writes gets it once that one is done."""
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with make_application({"main": f"sqlite:///{file}"}) as app, ThreadPoolExecutor(1) as pool:
            future = pool.submit(lambda: app.dbs["main"].engine.connect().close())
            with pytest.raises(TimeoutError):
                future.result(0.3)
            other.execute("ROLLBACK")
            future.result(WAIT)


def test_new_file_that_stays_locked(tmp_path: Path) -> None:
    """Who opens a file that stays locked waits for its time-out, and no longer."""
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with make_application({"main": f"sqlite:///{file}?timeout=0.3"}) as app:
            started = time.monotonic()
            with pytest.raises(sa.exc.OperationalError, match="database is locked"):
                app.dbs["main"].engine.connect()
            assert 0.3 <= time.monotonic() - started < WAIT


def test_another_thread_waits(database: Database) -> None:
    """A session of another thread waits for the first to end, and then sees what it wrote."""
    started = threading.Event()

    def read() -> object:
        with database.session() as session:
            started.set()
            return session.scalar(READ)

    with ThreadPoolExecutor(1) as pool:
        with database.session() as session:
            session.execute(WRITE)
            future = pool.submit(read)
            assert started.wait(WAIT)
            assert not future.done()
            session.commit()
        assert 1 == future.result(WAIT)


# --- nobody waits for himself


def test_second_session_of_a_thread(database: Database) -> None:
    """A second session while the first is in a transaction fails at once, and names both lines."""
    with database.session() as first, database.session() as second:
        first.execute(WRITE)
        with pytest.raises(SessionConflict) as caught:
            second.scalar(READ)
        begun = str(caught.value).split(HERE)
        assert 3 == len(begun)
        lines = [int(part.partition(":")[2].partition(" ")[0]) for part in begun[1:]]
        assert [2, 0] == [caught.tb.tb_lineno - line for line in lines]
        assert "counter.db" in str(caught.value)
        assert "lend the first session, commit it, or open" in str(caught.value)
        assert "session(read_only=True)" in str(caught.value)
        first.commit()
        assert 1 == second.scalar(READ)


def test_read_only_session_beside_it(database: Database) -> None:
    """A read-only session works beside one that writes, and sees what is committed."""
    with database.session() as writer, database.session(read_only=True) as reader:
        writer.execute(WRITE)
        assert 0 == reader.scalar(READ)
        writer.commit()
        reader.rollback()
        assert 1 == reader.scalar(READ)
        writer.execute(WRITE)
        assert 1 == reader.scalar(READ)


@pytest.mark.parametrize(
    "end", [Session.commit, Session.rollback, Session.close, Session.abandon, Session.invalidate]
)
def test_free_after_the_end(database: Database, end: Callable[[Session], None]) -> None:
    """Once the first session's transaction has ended the second may begin."""
    with database.session() as first, database.session() as second:
        first.execute(WRITE)
        end(first)
        second.execute(WRITE)
        second.commit()
        assert second.scalar(READ) in (1, 2)


def test_free_after_the_pool_was_closed(database: Database) -> None:
    """After the pooled connections were closed the thread begins anew."""
    for _ in range(3):
        with database.session() as session:
            session.execute(WRITE)
            session.commit()
        database.dispose()


def test_free_after_an_error(database: Database) -> None:
    """A block that failed, and a statement that failed, leave the way free."""
    with pytest.raises(ZeroDivisionError), database.session() as session:
        raise ZeroDivisionError(session.execute(WRITE))
    with database.session() as session:
        with pytest.raises(sa.exc.OperationalError, match="no such table"):
            session.execute(sa.text("SELECT * FROM nowhere"))
    with database.session() as session:
        assert 0 == session.scalar(READ)


def test_two_names_of_one_file(url: str) -> None:
    """Two databases that are one file are seen as one."""
    with make(url, names=("main", "audit")) as app:
        with app.dbs["main"].session() as first, app.dbs["audit"].session() as second:
            first.execute(WRITE)
            with pytest.raises(SessionConflict):
                second.scalar(READ)


def test_two_files(tmp_path: Path, url: str) -> None:
    """Sessions of two files do not concern each other."""
    with ExitStack() as stack:
        for one in (url, f"sqlite:///{tmp_path / 'other.db'}"):
            app = stack.enter_context(make(one))
            session = stack.enter_context(app.dbs["main"].session())
            session.execute(WRITE)


def test_generator_that_holds_a_session(database: Database) -> None:
    """A session that a suspended generator holds is found out, and free once it is closed."""

    def rows() -> Iterator[Any]:
        with database.session() as session:
            yield from session.scalars(READ)
            yield "more"

    suspended = rows()
    assert 0 == next(suspended)
    with database.session() as session, pytest.raises(SessionConflict, match=r"\(rows\)"):
        session.scalar(READ)
    del suspended
    with database.session() as session:
        assert 0 == session.scalar(READ)


def test_thread_after_a_thread(database: Database) -> None:
    """A transaction that another thread has ended is no conflict for anybody."""

    def write() -> None:
        with database.transaction() as session:
            session.execute(WRITE)

    for _ in range(3):
        in_thread(write)
        write()
    with database.session() as session:
        assert 6 == session.scalar(READ)


def test_session_that_moves_to_another_thread(database: Database) -> None:
    """A session that was begun in one thread may be used and ended in another."""
    session = database.get_session()
    session.execute(WRITE)
    in_thread(session.commit)
    session.close()
    with database.session() as other:
        assert 1 == other.scalar(READ)


# --- AUTOCOMMIT


def test_autocommit_really_commits(database: Database) -> None:
    """In AUTOCOMMIT every statement is stored at once, and the next session has transactions."""
    with database.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(WRITE)
        assert 1 == in_thread(lambda: value(database))
        connection.execute(WRITE)
        connection.rollback()
    assert 2 == value(database)
    with database.session() as session:
        session.execute(WRITE)
    assert 2 == value(database)


def value(database: Database) -> object:
    with database.session() as session:
        return session.scalar(READ)


def test_engine_set_to_autocommit(url: str) -> None:
    """An engine that is set to AUTOCOMMIT stores every statement."""
    settings = {"db:main:options": {"isolation_level": "AUTOCOMMIT"}}
    with make(url, settings=settings) as app, app.dbs["main"].session() as first:
        first.execute(WRITE)
        with app.dbs["main"].session() as second:
            assert 1 == second.scalar(READ)


# --- in memory


@pytest.fixture
def memory() -> Iterator[Database]:
    with make("sqlite://") as app:
        yield app.dbs["main"]


def test_memory_is_for_one_after_the_other(memory: Database) -> None:
    """Threads use a database in memory one after the other, and see each other's rows."""

    def write() -> None:
        with memory.transaction() as session:
            session.execute(WRITE)

    for _ in range(3):
        in_thread(write)
    assert 3 == value(memory)


def test_second_session_in_memory(memory: Database) -> None:
    """The one connection of a database in memory is not waited for by who has it."""
    with memory.session() as first, memory.session() as second:
        first.execute(WRITE)
        with pytest.raises(SessionConflict, match="a database in memory") as caught:
            second.scalar(READ)
        assert 2 == str(caught.value).count(HERE)
        first.commit()
        assert 1 == second.scalar(READ)


def test_other_thread_waits_for_memory(memory: Database) -> None:
    """Another thread waits until the connection of a database in memory is given back."""
    with ThreadPoolExecutor(1) as pool:
        with memory.session() as session:
            session.execute(WRITE)
            future = pool.submit(value, memory)
            session.commit()
        assert 1 == future.result(WAIT)


def test_read_only_in_memory(memory: Database) -> None:
    """The one connection writes again after a read-only session had it."""
    with memory.session(read_only=True) as session:
        assert 0 == session.scalar(READ)
    with memory.transaction() as session:
        session.execute(WRITE)
    assert 1 == value(memory)
