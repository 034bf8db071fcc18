"""What several threads, and interleaved transactions, do in a sandbox."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.errors import SandboxConflict
from qapla_db.testing import SandboxWarning
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.world import (
    SECONDS,
    SLOW,
    Item,
    World,
    in_thread,
    sandbox_that_ends_with,
    wait_until_it_runs,
)


def test_a_thread_after_another(world: World) -> None:
    """What one thread commits the next one sees, and the test sees both."""
    with sandbox(world):
        in_thread(lambda: world.add("first"))()
        assert ["first"] == in_thread(world.names)()
        in_thread(lambda: world.add("second"))()
        assert ["first", "second"] == world.names()


def test_four_threads_at_once(world: World) -> None:
    """Of many transactions in four threads every committed one counts, and no other."""

    def work(number: int) -> None:
        for turn in range(30):
            with world.session() as session:
                session.scalar(sa.select(sa.func.count()).select_from(Item))
                session.add(Item(name=f"{number}-{turn:02}", amount=turn % 3))
                session.flush()
                session.scalar(sa.select(sa.func.max(Item.amount)))
                if turn % 3:
                    session.commit()
                else:
                    session.rollback()

    with sandbox(world):
        waits = [in_thread(lambda n=n: work(n), f"worker {n}") for n in range(4)]  # type: ignore[misc]
        for wait in waits:
            wait()
        expected = [f"{n}-{turn:02}" for n in range(4) for turn in range(30) if turn % 3]
        assert expected == world.names()


def test_no_update_is_lost_between_threads(world: World) -> None:
    """Threads that read a row for update, and then change it, wait for each other."""

    def increase() -> None:
        for _ in range(20):
            with world.session() as session:
                item = session.scalars(sa.select(Item).with_for_update()).one()
                item.amount += 1
                session.commit()

    with sandbox(world):
        world.add("counter")
        waits = [in_thread(increase) for _ in range(4)]
        for wait in waits:
            wait()
        with world.session() as session:
            assert 80 == session.scalar(sa.select(Item.amount))


def test_a_thread_waits_for_the_writer_in_another(world: World) -> None:
    """A write waits for the end of another thread's transaction, and then succeeds."""
    written, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with world.session() as session:
            session.add(Item(name="undone"))
            session.flush()
            written.set()
            assert go_on.wait(SECONDS)
            session.rollback()

    with sandbox(world):
        first = in_thread(slow)
        assert written.wait(SECONDS)
        second = in_thread(lambda: world.add("kept"))
        go_on.set()
        first()
        second()
        assert ["kept"] == world.names()


def test_a_wait_that_is_too_long_is_a_conflict(world: World) -> None:
    """A thread that waits in vain for another names both, the database and the way out."""
    written, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with world.session() as session:
            session.add(Item(name="slow"))
            session.flush()
            written.set()
            assert go_on.wait(SECONDS)
            session.commit()

    with sandbox(world, wait=0.2):
        first = in_thread(slow, "the slow one")
        assert written.wait(SECONDS)
        with pytest.raises(SandboxConflict) as caught:
            world.add("impatient")
        go_on.set()
        first()
        world.add("later")
        assert ["later", "slow"] == world.names()
    message = str(caught.value)
    for part in (world.name, "'the slow one'", "'MainThread'", __file__, "0.2 s", "wait="):
        assert part in message


@pytest.mark.parametrize("end", ["commit", "rollback", "invalidate"])
def test_a_transaction_that_ended_blocks_nobody(world: World, end: str) -> None:
    """A thread is waited for as long as its transaction is open, and not until it ends itself."""
    ended, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with world.session() as session:
            session.add(Item(name="of the thread"))
            session.flush()
            getattr(session, end)()
            ended.set()
            assert go_on.wait(SECONDS)

    with sandbox(world, wait=0.2):
        wait = in_thread(work)
        assert ended.wait(SECONDS)
        world.add("of the test")
        expected = ["of the test", "of the thread"] if end == "commit" else ["of the test"]
        assert expected == world.names()
        go_on.set()
        wait()


def test_nobody_waits_for_the_thread_of_the_test(world: World) -> None:
    """A test that holds uncommitted work does not block the threads that it waits for."""
    with sandbox(world, wait=60):
        with world.session() as session:
            session.add(Item(name="of the test"))
            session.flush()
            in_thread(lambda: world.add("of a thread"))()
            session.commit()
        assert ["of a thread", "of the test"] == world.names()


def test_a_thread_that_ended_blocks_nobody(world: World) -> None:
    """Uncommitted work of a thread that is over is not waited for."""
    kept = []

    def leave() -> None:
        session = world.session()
        session.add(Item(name="left"))
        session.flush()
        kept.append(session)

    with sandbox(world, wait=60):
        in_thread(leave)()
        started = time.monotonic()
        world.add("next")
        assert time.monotonic() - started < SECONDS
        with pytest.warns(SandboxWarning):
            kept[0].close()


def test_a_failure_in_one_thread_does_not_touch_another(postgresql: World) -> None:
    """Statements that fail in some threads cost the others nothing."""

    def fail() -> None:
        for _ in range(30):
            with postgresql.session() as session:
                with pytest.raises(sa.exc.ProgrammingError):
                    session.execute(sa.text("SELECT no_such_column FROM item"))
                session.rollback()

    def work(number: int) -> None:
        for turn in range(30):
            postgresql.add(f"{number}-{turn:02}")
            postgresql.names()

    with sandbox(postgresql):
        waits = [in_thread(fail), in_thread(fail)]
        waits += [in_thread(lambda n=n: work(n)) for n in range(2)]  # type: ignore[misc]
        for wait in waits:
            wait()
        assert 60 == len(postgresql.names())


def test_sqlite_readers_need_not_wait(sqlite: World) -> None:
    """A read-only session reads while another thread writes; others take turns."""
    written, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with sqlite.session() as session:
            session.add(Item(name="slow"))
            session.flush()
            written.set()
            assert go_on.wait(SECONDS)
            session.commit()

    with sandbox(sqlite, wait=0.2):
        first = in_thread(slow)
        assert written.wait(SECONDS)
        with sqlite.engine.execution_options(qapla_db_read_only=True).connect() as connection:
            assert 1 == connection.scalar(sa.text("SELECT 1"))
        with pytest.raises(SandboxConflict):
            sqlite.names()
        go_on.set()
        first()


def test_interleaved_writes_that_are_both_committed(world: World) -> None:
    """Two sessions of a thread that write in turns are no problem while both commit."""
    with sandbox(world):
        with world.session() as one, world.session() as other:
            for turn in range(3):
                one.add(Item(name=f"one {turn}"))
                one.flush()
                other.add(Item(name=f"other {turn}"))
                other.flush()
            other.commit()
            one.commit()
        assert 6 == len(world.names())


def test_interleaved_writes_of_which_one_is_rolled_back(world: World) -> None:
    """A rollback that would take later work of another along is refused with both named."""
    with sandbox_that_ends_with(world, SandboxConflict) as at_the_end:
        one, other = world.session(), world.session()
        one.add(Item(name="one"))
        one.flush()
        other.add(Item(name="other"))
        other.flush()
        one.add(Item(name="one again"))
        one.flush()
        with pytest.raises(SandboxConflict) as caught:
            other.rollback()
        one.close()
        other.close()
    message = str(caught.value)
    assert message == str(at_the_end[0])
    assert 2 == message.count(__file__)
    for part in (world.name, "real commits", "rolled back"):
        assert part in message


def test_a_rollback_below_uncommitted_work_of_another(world: World) -> None:
    """Whose work a conflict has undone cannot commit it either: the loss is not hidden."""
    with sandbox_that_ends_with(world, SandboxConflict):
        one, other = world.session(), world.session()
        one.add(Item(name="one"))
        one.flush()
        other.add(Item(name="other"))
        other.flush()
        with pytest.raises(SandboxConflict, match="undid both"):
            one.rollback()
        with pytest.raises(SandboxConflict, match="undid both"):
            other.execute(sa.select(Item.name))
        with pytest.raises(SandboxConflict, match="undid both"):
            other.commit()
        other.rollback()
        world.add("next")
        assert ["next"] == world.names()
        one.close()
        other.close()


def test_a_statement_that_fails_below_uncommitted_work(world: World) -> None:
    """A failed read of one session leaves the uncommitted work of another alone."""
    with sandbox(world):
        with world.session() as one, world.session() as other:
            one.add(Item(name="one"))
            one.flush()
            other.add(Item(name="other"))
            other.flush()
            with pytest.raises(sa.exc.DBAPIError):
                one.execute(sa.text("SELECT no_such_column FROM item"))
            if world.kind == "postgresql":
                with pytest.raises(sa.exc.InternalError, match="aborted"):
                    one.execute(sa.text("SELECT 1"))
            other.commit()
            with pytest.warns(SandboxWarning):
                one.rollback()


def test_a_savepoint_below_uncommitted_work(world: World) -> None:
    """To release a savepoint is harmless to others above it; to go back to it is a conflict."""
    with sandbox(world):
        with world.session() as one, world.session() as other:
            savepoint = one.begin_nested()
            one.add(Item(name="one"))
            one.flush()
            other.add(Item(name="other"))
            other.flush()
            savepoint.commit()
            other.commit()
            one.commit()
        assert ["one", "other"] == world.names()
        with world.engine.connect() as first, world.engine.connect() as second:
            savepoint = first.begin_nested()  # type: ignore[assignment]
            first.execute(sa.insert(Item).values(name="first", amount=0))
            second.execute(sa.insert(Item).values(name="second", amount=0))
            with pytest.raises(SandboxConflict, match="used a savepoint"):
                savepoint.rollback()
            second.rollback()
        with world.engine.connect() as first, world.engine.connect() as second:
            first.execute(sa.insert(Item).values(name="first", amount=0))
            savepoint = second.begin_nested()  # type: ignore[assignment]
            second.execute(sa.insert(Item).values(name="second", amount=0))
            first.execute(sa.insert(Item).values(name="first again", amount=0))
            with pytest.raises(SandboxConflict, match="went back to a savepoint"):
                savepoint.rollback()
            second.commit()
            first.commit()
        assert ["first", "first again", "one", "other", "second"] == world.names()


def test_tasks_of_asyncio_that_interleave(world: World) -> None:
    """Tasks that write in turns in one thread are refused like any two sessions."""

    async def task(name: str, mine: asyncio.Event, other: asyncio.Event) -> None:
        with world.session() as session:
            session.add(Item(name=f"{name} 1"))
            session.flush()
            mine.clear()  # from Python 3.12 on, who waits for what is set goes on at once
            other.set()
            await asyncio.wait_for(mine.wait(), SECONDS)
            session.add(Item(name=f"{name} 2"))
            session.flush()
            if name == "second":
                session.rollback()
            other.set()

    async def both() -> None:
        one, two = asyncio.Event(), asyncio.Event()
        await asyncio.gather(task("first", one, two), task("second", two, one))

    with sandbox_that_ends_with(world, SandboxConflict):
        asyncio.run(both())


def test_a_statement_that_runs_on_when_the_test_ends(world: World) -> None:
    """The end of a sandbox does not wait for a statement that a thread still runs."""
    running = threading.Event()

    def announce() -> int:
        running.set()
        return 1

    def run() -> None:
        with world.engine.connect() as connection:
            if world.kind == "sqlite":
                raw: Any = connection.connection.driver_connection
                raw.create_function("announce", 0, announce)
                connection.execute(sa.text(SLOW["sqlite"].format("announce()")))
            else:
                connection.execute(sa.text(SLOW[world.kind].format(60)))

    started = time.monotonic()
    with sandbox(world, wait=0.5):
        wait = in_thread(run)
        wait_until_it_runs(world, running)
    assert time.monotonic() - started < SECONDS
    with suppress(Exception):  # which error it gets is a matter of who is faster
        wait()
    assert [] == world.names()
