"""Several deploys at once, locks that are held, tables in use."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest
import sqlalchemy as sa

from qapla_db.backends import get_backend
from qapla_db.errors import MigrationError, MigrationLockTimeout
from qapla_db.migrations import current, migrate
from qapla_db.migrations.lock import LockRequest, migration_lock
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, Project, rows, tables
from tests.support import wait_until

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"

MARK = """
import os, pathlib
(pathlib.Path(__file__).parents[2] / f"ready.{os.getpid()}").touch()
Model = sa.MetaData()
"""


def engine_of(url: sa.URL) -> sa.Engine:
    backend = get_backend(url)
    assert backend is not None
    return sa.create_engine(backend.complete(url), poolclass=sa.NullPool)


@contextmanager
def held(url: sa.URL, table: str = "alembic_version") -> Iterator[None]:
    """Hold what a migration run of a database needs first."""
    request = LockRequest("main", "here", table, 5.0, print)
    if url.get_backend_name() != "sqlite":
        with migration_lock(engine_of(url), request):
            yield
        return
    with closing(sqlite3.connect(str(url.database), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def start_together(
    project: Project, count: int, holding: AbstractContextManager[None]
) -> list[tuple[int, str]]:
    """Start several upgrades while none can begin; let them go; (exit code, output) of each."""
    with holding:
        processes = [
            subprocess.Popen(
                project.command("upgrade", "head"),
                cwd=project.root,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(count)
        ]
        ready = project.root.glob
        wait_until(lambda: len(list(ready("ready.*"))) == count, "env.py runs in all", WAIT)
    outputs = [process.communicate(timeout=WAIT)[0] for process in processes]
    return [(one.returncode, output) for one, output in zip(processes, outputs, strict=True)]


def test_deploys_at_once(project: Project, each_url: sa.URL) -> None:
    """Of three upgrades at once one does the work, the others wait and find it done."""
    project.write_env("main", MARK)
    project.revision("a1", CREATE.format("account"))
    project.revision("a2", "op.execute('INSERT INTO account (id) VALUES (100)')", after="a1")
    project.revision("a3", "op.execute('UPDATE account SET id = id + 100')", after="a2")
    results = start_together(project, 3, held(each_url))
    assert [0, 0, 0] == [code for code, _ in results], results
    steps = [line for _, output in results for line in output.splitlines() if "->" in line]
    done = [line for _, output in results for line in output.splitlines() if "nothing to" in line]
    assert ["main: base -> a1 a1", "main: a1 -> a2 a2", "main: a2 -> a3 a3"] == steps
    assert ["main: nothing to do, at a3"] * 2 == done
    assert [(200,)] == rows(each_url, "SELECT id FROM account")


def test_concurrent_index(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """CREATE INDEX CONCURRENTLY in a revision ends, while other deploys wait for the lock."""
    project = make_project({"main": postgresql_database_url})
    project.write_env("main", MARK)
    project.revision("a1", CREATE.format("airport"))
    project.revision(
        "a2",
        """
        with op.get_context().autocommit_block():
            op.create_index("ix_id", "airport", ["id"], postgresql_concurrently=True)
        """,
        after="a1",
    )
    project.revision("a3", CREATE.format("runway"), after="a2")
    results = start_together(project, 3, held(postgresql_database_url))
    assert [0, 0, 0] == [code for code, _ in results], results
    assert [(True,)] == rows(
        postgresql_database_url,
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_id'::regclass",
    )
    assert ("a3",) == current(project.database())


def test_lock_names_its_holder(project: Project, each_url: sa.URL) -> None:
    """Who waits in vain is told who holds the lock and how to end it."""
    project.write_env("main", lock_wait=0.3)
    project.revision("a1", CREATE.format("airport"))
    lines, started = list[str](), time.monotonic()
    with (
        held(each_url),
        pytest.raises(MigrationLockTimeout, match=r"gave up after 0\.3 s") as caught,
    ):
        migrate(project.database(), report=lines.append)
    assert time.monotonic() - started < 15
    end = {
        "postgresql": r"pg_terminate_backend\(\d+\)",
        "mariadb": r"connection \d+ \(root from localhost\).*KILL \d+",
        "sqlite": "SQLite does not tell",
    }[each_url.get_backend_name()]
    caught.match(end)
    waited = [] if each_url.get_backend_name() == "sqlite" else ["main: waiting for another"]
    assert waited == [line[:25] for line in lines]
    assert [] == tables(each_url)
    migrate(project.database())
    assert ("a1",) == current(project.database())


def test_lock_of_another_name(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """Two names of one database are migrated independently of each other."""
    urls = {"main": postgresql_database_url, "audit": postgresql_database_url}
    project = make_project(urls)
    project.write_env("main", lock_wait=0.1)
    project.revision("a1", CREATE.format("airport"))
    with held(postgresql_database_url, "alembic_version_audit"):
        migrate(project.database())


def test_looking_takes_no_lock(project: Project, each_url: sa.URL) -> None:
    """The current revision can be asked for while a migration runs."""
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    migrate(database)
    with held(each_url):
        assert ("a1",) == current(database)


@contextmanager
def in_use(url: sa.URL, table: str) -> Iterator[Callable[[], None]]:
    """Read a table in a transaction that stays open until the function is called."""
    with engine_of(url).connect() as connection:
        # so that what waits for us without a limit goes on some day
        connection.execute(sa.text("SET idle_in_transaction_session_timeout = '20s'"))
        connection.execute(sa.text(f"SELECT * FROM {table}"))  # noqa: S608
        yield connection.rollback


def test_table_in_use(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A revision that cannot lock its table lets others through and tries again."""
    project = make_project({"main": postgresql_database_url})
    project.write_env("main", lock_timeout=0.1)
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    migrate(database)
    project.revision("a2", CREATE.format("runway"), after="a1")
    project.revision(
        "a3", "op.add_column('airport', sa.Column('name', sa.Text))", after="a2", doc="names"
    )
    tried, lines = threading.Event(), list[str]()

    def report(line: str) -> None:
        lines.append(line)
        if "trying again" in line:
            # who only reads is let through meanwhile
            rows(postgresql_database_url, "SET lock_timeout = '5s'; SELECT * FROM airport")
            tried.set()

    with in_use(postgresql_database_url, "airport") as release:
        threading.Thread(target=lambda: tried.wait(20) and release()).start()
        migrate(database, report=report)
    assert "main: a1 -> a2 a2" == lines[0]
    assert "main: a2 -> a3 names" == lines[1]
    assert "main: others use what the revision needs; trying again" == lines[2]
    assert "main: a2 -> a3 names" == lines[-1]
    assert ("a3",) == current(database)


def test_table_in_use_for_ever(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """When the table stays in use the error says what waited, and the finished steps stay."""
    project = make_project({"main": postgresql_database_url})
    project.write_env("main", lock_timeout=0.05, lock_wait=0.1)
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", "op.add_column('airport', sa.Column('name', sa.Text))", after="a1")
    database = project.database()
    migrate(database, "a1")
    with in_use(postgresql_database_url, "airport"):
        with pytest.raises(MigrationLockTimeout, match=r"a1 -> a2.*lock timeout.*is at a1"):
            migrate(database)
    assert ("a1",) == current(database)
    migrate(database)


def test_half_done_is_not_tried_again(
    make_project: MakeProject, postgresql_database_url: sa.URL
) -> None:
    """A revision that has committed a part of its work is not run a second time."""
    project = make_project({"main": postgresql_database_url})
    project.write_env("main", lock_timeout=0.05)
    project.revision("a1", CREATE.format("airport"))
    project.revision(
        "a2",
        f"""
        {CREATE.format("runway")}
        with op.get_context().autocommit_block():
            op.execute("SELECT 1")
        op.add_column("airport", sa.Column("name", sa.Text))
        """,
        after="a1",
    )
    database = project.database()
    migrate(database, "a1")
    with in_use(postgresql_database_url, "airport"):
        with pytest.raises(MigrationError, match="had committed a part of its work"):
            migrate(database)
    assert ["airport", "alembic_version", "runway"] == tables(postgresql_database_url)


def test_killed_run(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A run that is killed gives its lock back, and the next one finishes its work."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", "op.execute('SELECT pg_sleep(60)')", after="a1")
    process = subprocess.Popen(
        project.command("upgrade", "head"),
        cwd=project.root,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert "main: a1 -> a2 a2\n" == lines[1]
    process.kill()
    process.communicate(timeout=WAIT)
    project.revision("a2", CREATE.format("runway"), after="a1")
    migrate(project.database())
    assert ["airport", "alembic_version", "runway"] == tables(postgresql_database_url)


END_THE_LOCK = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
    "mariadb": "SELECT concat('KILL ', id) FROM information_schema.processlist "
    "WHERE db = database() AND id <> connection_id()",
}


def test_lost_lock(
    make_project: MakeProject, server_database_url: sa.URL, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock whose connection was ended during the run is logged; the run is complete."""
    project = make_project({"main": server_database_url})
    query = END_THE_LOCK[server_database_url.get_backend_name()]
    project.revision(
        "a1",
        f"""
        ended = op.get_bind().scalar(sa.text({query!r}))
        if ended is not True:
            op.execute(ended)
        """,
    )
    database = project.database()
    migrate(database)
    assert "the migration lock of 'main' was lost during the run" in caplog.messages
    assert ("a1",) == current(database)
