"""What breaks a sandbox, how that is told, and what cannot use one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.errors import SandboxBroken, SandboxError
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.world import (
    SECONDS,
    Item,
    World,
    fail_on_purpose,
    in_thread,
    sandbox_that_ends_with,
)

# --- what breaks it


def _commit_by_driver(world: World) -> None:
    raw = world.engine.raw_connection()
    raw.commit()
    raw.close()


def _commit_by_statement(world: World) -> None:
    with world.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")


@pytest.mark.parametrize("commit", [_commit_by_driver, _commit_by_statement])
@pytest.mark.parametrize("work_after", [False, True])
def test_a_real_commit_is_caught(world: World, commit: Any, work_after: bool) -> None:
    """What commits behind the sandbox is reported at the end; what comes after is isolated."""
    with sandbox_that_ends_with(world, SandboxBroken) as caught:
        world.add("before")
        commit(world)
        if work_after:
            world.add("after")
            assert ["after", "before"] == world.names()
    assert ["before"] == world.really()
    for part in (world.name, "recreate", "real commits"):
        assert part in str(caught[0])
    world.wipe()
    with sandbox(world):
        world.add("next")
        assert ["next"] == world.names()


def test_a_real_commit_in_the_middle_of_a_transaction(world: World) -> None:
    """The session whose savepoint vanished is not left with puzzling errors."""
    with sandbox_that_ends_with(world, SandboxBroken):
        with world.session() as session:
            session.add(Item(name="one"))
            session.flush()
            session.connection().connection.commit()
            session.add(Item(name="two"))
            session.commit()
        assert ["one", "two"] == world.names()
    assert ["one"] == world.really()
    world.wipe()


def test_a_real_commit_and_work_by_the_driver_after_it(world: World) -> None:
    """A savepoint that somebody else removed is reported as what it is."""
    with sandbox_that_ends_with(world, SandboxBroken):
        with world.session() as session:
            session.add(Item(name="one"))
            session.flush()
            raw: Any = world.engine.raw_connection()
            raw.commit()
            raw.driver_connection.cursor().execute(
                "SELECT 1" if world.kind == "postgresql" else "BEGIN"
            )
            with pytest.raises(SandboxBroken):
                session.commit()
            raw.close()
        world.add("after")
        assert ["after", "one"] == world.names()
    assert ["one"] == world.really()
    world.wipe()


def test_mariadb_commits_at_ddl(mariadb: World) -> None:
    """The implicit commit of MariaDB's DDL is reported with the statement that did it."""
    table = sa.Table("made_by_a_test", sa.MetaData(), sa.Column("id", sa.Integer))
    with sandbox_that_ends_with(mariadb, SandboxBroken, "'CREATE TABLE made_by_a_test'"):
        mariadb.add("before")
        table.create(mariadb.engine)
        mariadb.add("after")
        assert ["after", "before"] == mariadb.names()
    assert ["before"] == mariadb.really()
    table.drop(mariadb.outside)
    mariadb.wipe()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE OR REPLACE USER tester IDENTIFIED BY 'hunter2'",
        "SET PASSWORD/**/FOR/**/tester=PASSWORD('hunter2')",
    ],
)
def test_no_password_in_the_message(mariadb: World, statement: str) -> None:
    """The statement that broke a sandbox is quoted by its first words, without what is secret."""
    with mariadb.outside.begin() as connection:
        connection.exec_driver_sql("CREATE OR REPLACE USER tester")
    with sandbox_that_ends_with(mariadb, SandboxBroken, "the statement ") as caught:
        with mariadb.engine.connect() as connection:
            connection.exec_driver_sql(statement)
    with mariadb.outside.begin() as connection:
        connection.exec_driver_sql("DROP USER tester")
    assert "hunter2" not in str(caught[0])


def test_the_error_of_the_test_comes_first(world: World) -> None:
    """A test that fails in a broken sandbox shows its own error, with a note."""
    with sandbox_that_ends_with(world, LookupError) as caught:
        _commit_by_driver(world)
        fail_on_purpose()
    assert "ended the outer transaction" in caught[0].__notes__[0]


def test_a_lost_connection(
    postgresql: World, mariadb: World, caplog: pytest.LogCaptureFixture
) -> None:
    """When the server ends the connection the test is told, and the next one works."""
    kill = {
        "postgresql": "SELECT pg_terminate_backend({})",
        "mariadb": "KILL {}",
    }
    for world in (postgresql, mariadb):
        number = "pg_backend_pid()" if world.kind == "postgresql" else "connection_id()"
        with sandbox_that_ends_with(world, SandboxBroken, "was lost"):
            world.add("lost")
            with world.engine.connect() as connection:
                pid = connection.scalar(sa.text(f"SELECT {number}"))
            with world.outside.connect() as connection:
                connection.exec_driver_sql(kill[world.kind].format(pid))
            with pytest.raises(sa.exc.OperationalError):
                in_thread(world.names)()
        with sandbox(world):
            world.add("next")
            assert ["next"] == world.names()
    assert [] == caplog.records, "the pool tried to reset what was lost"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_is_refused(world: World) -> None:
    """A forked child gets an error instead of the connection of its parent."""
    with sandbox(world):
        world.add("one")
        child = os.fork()
        if child == 0:
            try:
                world.engine.connect()
            except SandboxError:
                os._exit(42)
            os._exit(1)
        assert 42 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ["one"] == world.names()


# --- the door


def test_the_door_is_lazy() -> None:
    """The package and its plugin import nothing heavy, and the door gives the function."""
    program = (
        "import sys, qapla_db.testing as door\n"
        "assert 'sqlalchemy' not in sys.modules and 'pytest' not in sys.modules\n"
        "from qapla_db.testing import sandbox\n"
        "assert callable(sandbox) and sandbox.__name__ == 'sandbox', sandbox\n"
        "assert not hasattr(door, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS)
