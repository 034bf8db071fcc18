"""What one thread does in a sandbox."""

from __future__ import annotations

import gc

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from qapla_db.testing import SandboxWarning
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.world import (
    Item,
    World,
    fail_on_purpose,
    make_world,
    sandbox_that_ends_with,
)


def test_a_commit_is_real_for_others_and_gone_at_the_end(world: World) -> None:
    """What a session commits every other session sees, and afterwards nobody."""
    with sandbox(world):
        world.add("kept")
        assert ["kept"] == world.names()
        assert [] == world.really()
    assert [] == world.names()


def test_a_rollback_undoes_its_own_transaction_only(world: World) -> None:
    """A rolled back session loses its work; what was committed before stays."""
    with sandbox(world):
        world.add("before")
        with world.session() as session:
            session.add(Item(name="undone"))
            session.flush()
            session.rollback()
            session.add(Item(name="after"))
            session.commit()
        assert ["after", "before"] == world.names()


def test_close_without_commit_discards(world: World) -> None:
    """A session that is closed without a commit leaves nothing, as in production."""
    with sandbox(world):
        with world.session() as session:
            session.add(Item(name="forgotten"))
            session.flush()
        assert [] == world.names()


def test_an_error_in_the_block_undoes_the_sandbox_too(world: World) -> None:
    """The error of the test comes out as it is, and the commits of the test are gone."""
    with sandbox_that_ends_with(world, LookupError, "on purpose") as caught:
        world.add("gone")
        fail_on_purpose()
    assert not hasattr(caught[0], "__notes__")
    assert [] == world.really()


def test_one_sandbox_after_another(world: World) -> None:
    """Each test starts from the same state."""
    for _ in range(3):
        with sandbox(world):
            world.add("again")
            assert ["again"] == world.names()


def test_nested_savepoints(world: World) -> None:
    """Savepoints of a session nest, release and roll back inside its transaction."""
    with sandbox(world):
        with world.session() as session:
            session.add(Item(name="outer"))
            with session.begin_nested():
                session.add(Item(name="kept"))
                inner = session.begin_nested()
                session.add(Item(name="dropped"))
                session.flush()
                inner.rollback()
            session.commit()
        assert ["kept", "outer"] == world.names()


def test_savepoints_as_statements(world: World) -> None:
    """Savepoints may be set in SQL; to go back to one ends those inside it."""
    with sandbox(world):
        with world.engine.connect() as connection:
            connection.execute(sa.insert(Item).values(name="kept", amount=0))
            connection.exec_driver_sql("SAVEPOINT outside")
            connection.execute(sa.text("SAVEPOINT inside"))
            connection.execute(sa.insert(Item).values(name="dropped", amount=0))
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT outside")
            with pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.text("SELECT no_such_column FROM item"))
            connection.exec_driver_sql("ROLLBACK TO Outside")
            with pytest.raises(sa.exc.DBAPIError, match="inside"):
                connection.exec_driver_sql("RELEASE SAVEPOINT inside")
            connection.exec_driver_sql("ROLLBACK TO outside")
            connection.commit()
        assert ["kept"] == world.names()


def test_savepoints_of_readers(world: World) -> None:
    """A reader's savepoint is not lost with another reader that began after it."""
    count = sa.select(sa.func.count()).select_from(Item)
    with sandbox(world):
        with world.engine.connect() as one, world.engine.connect() as other:
            assert 0 == one.scalar(count)
            assert 0 == other.scalar(count)
            savepoint = one.begin_nested()
            other.rollback()
            one.execute(sa.insert(Item).values(name="dropped", amount=0))
            savepoint.rollback()
            one.execute(sa.insert(Item).values(name="kept", amount=0))
            one.commit()
        assert ["kept"] == world.names()


def test_savepoints_of_two_sessions_have_the_same_name(world: World) -> None:
    """SQLAlchemy numbers savepoints per connection; those of two sessions are kept apart."""
    with sandbox(world):
        with world.engine.connect() as first:
            savepoint = first.begin_nested()
            first.execute(sa.select(Item.name)).all()
            with world.session() as second:
                with second.begin_nested():
                    second.add(Item(name="second"))
                second.commit()
            first.execute(sa.insert(Item).values(name="first", amount=0))
            savepoint.rollback()
            first.commit()
        assert ["second"] == world.names()


def test_an_integrity_error_costs_only_its_own_transaction(world: World) -> None:
    """After a violated constraint the session rolls back and works on."""
    with sandbox(world):
        world.add("taken")
        with world.session() as session:
            session.add(Item(name="lost with the error"))
            session.flush()
            session.add(Item(name="taken"))
            with pytest.raises(sa.exc.IntegrityError):
                session.flush()
            session.rollback()
            session.add(Item(name="next"))
            session.commit()
        assert ["next", "taken"] == world.names()


def test_an_integrity_error_in_a_savepoint(world: World) -> None:
    """A violated constraint inside a savepoint leaves the transaction usable."""
    with sandbox(world):
        world.add("taken")
        with world.session() as session:
            session.add(Item(name="before"))
            session.flush()
            with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
                session.execute(sa.insert(Item).values(name="taken", amount=0))
            session.add(Item(name="after"))
            session.commit()
        assert ["after", "before", "taken"] == world.names()


def test_a_bad_statement(world: World) -> None:
    """A statement that the server refuses fails as in production, and a rollback clears up."""
    with sandbox(world):
        with world.session() as session:
            with pytest.raises(sa.exc.DBAPIError):
                session.execute(sa.text("SELECT no_such_column FROM item"))
            session.rollback()
            session.add(Item(name="after"))
            session.commit()
        assert ["after"] == world.names()


def test_a_failure_of_one_session_does_not_touch_another(world: World) -> None:
    """While one session has not rolled back after an error, others read, write and commit."""
    with sandbox(world):
        with world.session() as failing:
            with pytest.raises(sa.exc.DBAPIError):
                failing.execute(sa.text("SELECT no_such_column FROM item"))
            world.add("meanwhile")
            assert ["meanwhile"] == world.names()
            failing.rollback()
            assert 1 == failing.scalar(sa.select(sa.func.count()).select_from(Item))
        assert ["meanwhile"] == world.names()


def test_after_an_error_postgresql_takes_nothing_but_a_rollback(postgresql: World) -> None:
    """The session whose statement failed gets the server's answer to the next one too."""
    with sandbox(postgresql), postgresql.session() as session:
        with pytest.raises(sa.exc.ProgrammingError):
            session.execute(sa.text("SELECT no_such_column FROM item"))
        with pytest.raises(sa.exc.InternalError, match="current transaction is aborted"):
            session.execute(sa.text("SELECT 1"))
        session.rollback()
        assert 1 == session.scalar(sa.text("SELECT 1"))


def test_a_commit_after_an_error_is_a_rollback(postgresql: World) -> None:
    """The server rolls back when it is asked to commit a failed transaction."""
    with sandbox(postgresql):
        with postgresql.engine.connect() as connection:
            connection.execute(sa.insert(Item).values(name="lost", amount=0))
            with pytest.raises(sa.exc.ProgrammingError):
                connection.execute(sa.text("SELECT no_such_column FROM item"))
            connection.commit()
        assert [] == postgresql.names()


def test_two_databases(sqlite: World, postgresql: World) -> None:
    """Sandboxes of two databases are apart from each other."""
    with sandbox(sqlite), sandbox(postgresql):
        sqlite.add("here")
        postgresql.add("there")
        assert (["here"], ["there"]) == (sqlite.names(), postgresql.names())
    assert ([], []) == (sqlite.really(), postgresql.really())


@pytest.mark.parametrize("end", ["close", "rollback", "fail", "commit"])
def test_a_reader_stays_open_while_a_writer_commits(world: World, end: str) -> None:
    """However a session that only read ends, what others committed since then stays."""
    with sandbox(world):
        reader = world.session()
        assert [] == reader.scalars(sa.select(Item.name)).all()
        world.add("written")
        if end == "fail":
            with pytest.raises(sa.exc.DBAPIError):
                reader.execute(sa.text("SELECT no_such_column FROM item"))
        elif end != "close":
            getattr(reader, end)()
        reader.close()
        assert ["written"] == world.names()


def test_a_reader_that_writes_later(world: World) -> None:
    """A session that read before others committed can still write, and roll that back."""
    with sandbox(world):
        with world.session() as reader:
            reader.scalars(sa.select(Item.name)).all()
            world.add("first")
            reader.add(Item(name="second"))
            reader.flush()
            reader.rollback()
            reader.add(Item(name="third"))
            reader.commit()
        assert ["first", "third"] == world.names()


def test_a_reader_below_an_uncommitted_writer(world: World) -> None:
    """A failed or finished read does no harm to what another session has not committed yet."""
    with sandbox(world):
        with world.session() as reader, world.session() as writer:
            reader.scalars(sa.select(Item.name)).all()
            writer.add(Item(name="written"))
            writer.flush()
            with pytest.raises(sa.exc.DBAPIError):
                reader.execute(sa.text("SELECT no_such_column FROM item"))
            reader.close()
            writer.commit()
        assert ["written"] == world.names()


@pytest.mark.parametrize("second", ["commit", "rollback"])
def test_sessions_that_end_in_another_order_than_they_began(world: World, second: str) -> None:
    """The first to begin commits first; whatever the other does, that stays."""
    with sandbox(world):
        with world.session() as one, world.session() as other:
            one.add(Item(name="one"))
            one.flush()
            other.add(Item(name="other"))
            other.flush()
            one.commit()
            getattr(other, second)()
        expected = ["one", "other"] if second == "commit" else ["one"]
        assert expected == world.names()


def test_the_first_works_on_after_its_commit_below_another(world: World) -> None:
    """A session whose commit waits for another begins a new transaction meanwhile."""
    with sandbox(world):
        with world.session() as one, world.session() as other:
            one.add(Item(name="one"))
            one.flush()
            other.add(Item(name="other"))
            other.flush()
            one.commit()
            one.add(Item(name="one more"))
            one.commit()
            other.commit()
        assert ["one", "one more", "other"] == world.names()


def test_a_streaming_read_while_another_session_commits(world: World) -> None:
    """Rows of a query that is read bit by bit arrive, whatever others commit in between."""
    with sandbox(world):
        world.add(*(f"item {number:02}" for number in range(40)))
        with world.session() as reader:
            options = {"stream_results": True, "yield_per": 5}
            rows = reader.execute(sa.select(Item.name), execution_options=options)
            first = rows.fetchmany(5)
            world.add("in between")
            with world.session() as other:
                other.add(Item(name="undone"))
                other.flush()
            seen = {row.name for row in [*first, *rows]}
        assert {f"item {number:02}" for number in range(40)} <= seen
        assert "in between" in world.names()


def test_transactions_of_the_engine(world: World) -> None:
    """engine.begin(), engine.connect() and Session(engine) join without being told."""
    with sandbox(world):
        with world.engine.begin() as connection:
            connection.execute(sa.insert(Item).values(name="begin", amount=0))
        with world.engine.connect() as connection:
            connection.execute(sa.insert(Item).values(name="connect", amount=0))
            connection.commit()
            connection.execute(sa.insert(Item).values(name="not committed", amount=0))
        with orm.Session(world.engine) as session, session.begin():
            session.add(Item(name="session"))
        assert ["begin", "connect", "session"] == world.names()


def test_a_session_of_a_connection(world: World) -> None:
    """A session bound to a connection in a transaction behaves as without a sandbox."""
    with sandbox(world):
        with world.engine.connect() as connection:
            outer = connection.begin()
            with orm.Session(connection) as session:
                session.add(Item(name="bound"))
                session.commit()
            with orm.Session(connection, join_transaction_mode="create_savepoint") as session:
                session.add(Item(name="in a savepoint"))
                session.rollback()
            outer.commit()
        assert ["bound"] == world.names()


def test_ddl(sqlite: World, postgresql: World) -> None:
    """A table that a test creates is gone afterwards, where DDL takes part in transactions."""
    table = sa.Table("made_by_a_test", sa.MetaData(), sa.Column("id", sa.Integer))
    for world in (sqlite, postgresql):
        with sandbox(world):
            table.create(world.engine)
            with world.engine.begin() as connection:
                connection.execute(table.insert().values(id=1))
            assert sa.inspect(world.engine).has_table(table.name)
        assert not sa.inspect(world.outside).has_table(table.name)


@pytest.mark.parametrize("by", ["session", "engine"])
def test_a_rollback_that_takes_commits_of_others_along_warns(world: World, by: str) -> None:
    """Who committed while another had uncommitted work loses it with that, and is told."""
    with sandbox(world):
        world.add("before")
        with world.session() as first:
            first.add(Item(name="uncommitted"))
            first.flush()
            if by == "session":
                world.add("inside")
            else:
                with world.engine.begin() as connection:
                    connection.execute(sa.insert(Item).values(name="inside", amount=0))
            assert "inside" in world.names()
            with pytest.warns(SandboxWarning, match=f"{world.name}.*{__file__}.*committed"):
                first.rollback()
        assert ["before"] == world.names()


def test_commits_that_waited_are_told_of_too(world: World) -> None:
    """A commit that had to wait for a third session is not lost without a word either."""
    with sandbox(world):
        sessions = [world.session() for _ in range(3)]
        for number, session in enumerate(sessions):
            session.add(Item(name=f"item {number}"))
            session.flush()
        sessions[1].commit()
        sessions[2].rollback()
        assert ["item 0", "item 1"] == world.names()
        with pytest.warns(SandboxWarning, match="committed in the meantime"):
            sessions[0].rollback()
        for session in sessions:
            session.close()


def test_nothing_is_told_of_who_only_read(world: World) -> None:
    """A session that read and committed lost nothing by the rollback of another."""
    with sandbox(world):
        with world.session() as writer, world.session() as reader:
            writer.add(Item(name="undone"))
            writer.flush()
            reader.scalars(sa.select(Item.name)).all()
            reader.commit()
            writer.rollback()
        assert [] == world.names()


def test_going_back_to_a_savepoint_warns_likewise(world: World) -> None:
    """A commit inside a savepoint of another is gone with that savepoint, and it is told once."""
    with sandbox(world):
        with world.session() as first:
            first.add(Item(name="uncommitted"))
            first.flush()
            world.add("before the savepoint")
            savepoint = first.begin_nested()
            first.add(Item(name="in the savepoint"))
            first.flush()
            world.add("inside")
            with pytest.warns(SandboxWarning, match="committed in the meantime") as told:
                savepoint.rollback()
            assert " and " not in str(told[0].message)
            inner = first.begin_nested()
            world.add("released")
            inner.commit()
            first.begin_nested().rollback()
            first.commit()
        assert ["before the savepoint", "released", "uncommitted"] == world.names()


def test_a_commit_of_a_failed_transaction_warns_likewise(postgresql: World) -> None:
    """The server answers the commit of a failed transaction with a rollback."""
    with sandbox(postgresql):
        with postgresql.engine.connect() as first:
            first.execute(sa.insert(Item).values(name="uncommitted", amount=0))
            postgresql.add("inside")
            with pytest.raises(sa.exc.ProgrammingError):
                first.execute(sa.text("SELECT no_such_column FROM item"))
            with pytest.warns(SandboxWarning, match="committed in the meantime"):
                first.commit()
        assert [] == postgresql.names()


def test_a_function_that_writes_is_rolled_back(postgresql: World) -> None:
    """A SELECT that writes through a function is undone by the rollback of its session."""
    with sandbox(postgresql):
        _create_function(postgresql)
        with postgresql.session() as session:
            session.execute(sa.text("SELECT store()"))
            session.rollback()
        assert [] == postgresql.names()


def test_a_function_that_writes_above_another_session(postgresql: World) -> None:
    """It is undone before a session that wrote earlier goes on."""
    with sandbox(postgresql):
        _create_function(postgresql)
        with postgresql.session() as session:
            session.add(Item(name="one"))
            session.flush()
            with postgresql.session() as reader:
                reader.execute(sa.text("SELECT store()"))
            assert ["one"] == session.scalars(sa.select(Item.name)).all()
            session.commit()
        assert ["one"] == postgresql.names()


def _create_function(world: World) -> None:
    body = "INSERT INTO item (name, amount) VALUES ('by function', 0) RETURNING id"
    with world.session() as session:
        session.execute(sa.text(f"CREATE FUNCTION store() RETURNS int LANGUAGE sql AS $${body}$$"))
        session.commit()


# the garbage that is collected here may be that of another test
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_that_was_dropped_is_rolled_back(world: World) -> None:
    """A connection that is garbage without having been closed leaves no work behind."""
    with sandbox(world):
        connection = world.engine.connect()
        connection.execute(sa.insert(Item).values(name="dropped", amount=0))
        del connection
        gc.collect()
        assert [] == world.names()


def test_sqlite_in_memory() -> None:
    """A database in memory is isolated too, and is still there afterwards."""
    world = make_world("sqlite", sa.make_url("sqlite://"), poolclass=sa.StaticPool)
    Item.metadata.create_all(world.engine)
    world.add("before")
    with sandbox(world):
        world.add("inside")
        assert ["before", "inside"] == world.names()
    assert ["before"] == world.names()
    world.engine.dispose()
