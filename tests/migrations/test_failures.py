"""Revisions that fail, and what is left of them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from qapla_db.errors import MigrationError, MigrationIncomplete, SessionConflict
from qapla_db.migrations import current, migrate
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"


RUNWAYS = """
op.create_table("runway", sa.Column("id", sa.Integer, primary_key=True))
op.execute("INSERT INTO runway (id) VALUES (17 % 10)")
op.execute("INSERT INTO nowhere (id) VALUES (17 % 10)")
op.create_table("gate", sa.Column("id", sa.Integer, primary_key=True))
"""


def two_steps(project: Project) -> None:
    project.revision("a1", CREATE.format("airport"), doc="airports")
    project.revision(
        "a2",
        RUNWAYS,
        after="a1",
        doc="runways",
    )


def test_failing_halfway(project: Project, each_url: sa.URL) -> None:
    """The error names revision, file, line, statement and reason, and says what is left."""
    two_steps(project)
    database = project.database()
    with pytest.raises(MigrationError) as caught:
        migrate(database)
    message = str(caught.value)
    path = project.directory("main") / "versions" / "a2_.py"
    for part in (
        "'main' at ",
        f"in a1 -> a2 runways ({path}, line 13)",
        "nowhere",
        "Statement: INSERT INTO nowhere (id) VALUES (17 % 10).",
    ):
        assert part in message
    kind = each_url.get_backend_name()
    if kind == "postgresql":
        assert message.endswith("The revision was rolled back; the database is at a1.")
        assert ["airport", "alembic_version"] == tables(each_url)
    elif kind == "sqlite":
        assert message.endswith("All of this run was rolled back; the database is at base.")
        assert [] == tables(each_url)
    else:
        assert "does not roll DDL back, and it is at a1." in message
        assert "[1] CREATE TABLE runway ( id INTEGER NOT NULL AUTO_INCREMENT" in message
        assert "[2] INSERT INTO runway (id) VALUES (17 % 10). Undo them by hand" in message
        assert "airport" not in message
    assert (() if kind == "sqlite" else ("a1",)) == current(database)


def test_error_in_python(project: Project, each_url: sa.URL) -> None:
    """An error of the revision's own code arrives as it is, with a note on what is left."""
    project.revision("a1", f"{CREATE.format('airport')}\nraise LookupError('mine')")
    with pytest.raises(LookupError, match="mine") as caught:
        migrate(project.database())
    (note,) = caught.value.__notes__
    if each_url.get_backend_name() == "mariadb":
        assert "[1] CREATE TABLE airport" in note
    else:
        assert "rolled back; the database is at base." in note
        assert "airport" not in tables(each_url)


def test_one_line_on_the_command_line(project: Project) -> None:
    """The command alembic shows a failing statement without a traceback."""
    two_steps(project)
    result = project.alembic("upgrade", "head")
    assert 255 == result.returncode
    assert "" == result.stderr
    lines = result.stdout.splitlines()
    assert ["main: base -> a1 airports", "main: a1 -> a2 runways"] == lines[:2]
    assert lines[2].startswith("FAILED: the migration of the database 'main' at ")
    assert 3 == len(lines)


def test_commit_that_fails(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A constraint that is violated at the end of a revision is explained like a statement."""
    project = make_project({"main": postgresql_database_url})
    project.revision(
        "a1",
        """
        op.execute("CREATE TABLE t (id integer PRIMARY KEY, "
                   "up integer REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
        op.execute("INSERT INTO t VALUES (1, 2)")
        """,
    )
    with pytest.raises(MigrationError, match=r"base -> a1.*violates foreign key.*rolled back"):
        migrate(project.database())
    assert [] == tables(postgresql_database_url)


def test_never_silently_nothing(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A version table that does not hold what was applied is an error."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    migrate(database)
    project.revision("a2", CREATE.format("runway"), after="a1")
    rows(
        postgresql_database_url,
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.version_num = OLD.version_num; RETURN NEW; END'",
    )
    rows(
        postgresql_database_url,
        "CREATE TRIGGER keep BEFORE UPDATE ON alembic_version FOR EACH ROW EXECUTE FUNCTION keep()",
    )
    with pytest.raises(MigrationIncomplete, match="'alembic_version' holds a1 and not a2"):
        migrate(database)


def test_listener_that_executes(make_project: MakeProject, each_url: sa.URL) -> None:
    """A listener that has begun a transaction on our connection does not undo the migration."""
    project = make_project({"main": each_url})
    project.write_env(
        "main",
        """
        Model = sa.MetaData()

        @sa.event.listens_for(sa.Engine, "engine_connect")
        def begin(connection):
            if "fresh_test" in str(connection.engine.url):
                connection.exec_driver_sql("SELECT 1")
        """,
    )
    project.revision("a1", CREATE.format("airport"))
    result = project.alembic("upgrade", "head")
    assert 0 == result.returncode, result.stdout + result.stderr
    assert "airport" in tables(each_url)


KILL_ONESELF = {
    "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
    "mariadb": "KILL CONNECTION_ID()",
}


def test_lost_connection(make_project: MakeProject, server_database_url: sa.URL) -> None:
    """A connection that is lost in the middle of a revision is a failed revision."""
    project = make_project({"main": server_database_url})
    kill = KILL_ONESELF[server_database_url.get_backend_name()]
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", f"op.execute('{kill}')", after="a1")
    database = project.database()
    with pytest.raises(MigrationError, match=r"failed in a1 -> a2 .* at a1\."):
        migrate(database)
    assert ("a1",) == current(database)


def test_options_of_the_sessions(make_project: MakeProject, each_url: sa.URL) -> None:
    """Options that are meant for sessions do not change how a migration runs."""
    project = make_project({"main": each_url})
    options: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        "execution_options": {"isolation_level": "AUTOCOMMIT"},
    }
    pause = "SELECT 1"
    if each_url.get_backend_name() != "sqlite":
        options.update(pool_size=1, max_overflow=0, pool_timeout=0.1)
    if each_url.get_backend_name() == "mariadb":
        options["connect_args"] = {"read_timeout": 1}
        pause = "SELECT sleep(1.5)"
    project.revision("a1", f"op.execute('{pause}')\n{CREATE.format('airport')}")
    project.revision("a2", f"{CREATE.format('runway')}\nop.execute('nonsense')", after="a1")
    database = project.application().run_command({"db:main:options": options}).dbs["main"]
    migrate(database, "a1")
    with pytest.raises(MigrationError, match="nonsense"):
        migrate(database)
    left = ["runway"] if each_url.get_backend_name() == "mariadb" else []
    assert ["airport", "alembic_version", *left] == tables(each_url)


# --- SQLite


CHILDREN = """
op.create_table("parent", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("name", sa.String(9)))
op.create_table("child", sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("up", sa.Integer, sa.ForeignKey("parent.id", ondelete="CASCADE")))
op.execute("INSERT INTO parent (id) VALUES (1)")
op.execute("INSERT INTO child (id, up) VALUES (1, 1), (2, 1), (3, 1)")
"""

WIDER = """
with op.batch_alter_table("parent") as batch:
    batch.alter_column("name", type_=sa.String(99), existing_type=sa.String(9))
"""


@pytest.mark.parametrize("memory", [False, True])
def test_children_survive(make_project: MakeProject, fresh_url: FreshURL, memory: bool) -> None:
    """A parent table made anew in batch mode keeps the rows that refer to it."""
    project = make_project({"main": "sqlite://" if memory else fresh_url("sqlite")})
    project.revision("a1", CHILDREN)
    project.revision("a2", WIDER, after="a1")
    database = project.database()
    migrate(database)
    with database.session() as session:
        assert 3 == session.scalar(sa.text("SELECT count(*) FROM child"))
        assert 1 == session.scalar(sa.text("PRAGMA foreign_keys"))


def test_orphans_are_refused(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A revision that leaves rows without their parent is rolled back and named."""
    project = make_project({"main": fresh_url("sqlite")})
    project.revision("a1", CHILDREN)
    project.revision("a2", "op.execute('DELETE FROM parent')", after="a1")
    database = project.database()
    migrate(database, "a1")
    with pytest.raises(MigrationError, match=r"3 in 'child' \(of 'parent'\).*is at a1"):
        migrate(database)
    assert ("a1",) == current(database)


def test_old_orphans(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Rows that were without their parent before do not stand in the way of a migration."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    project.revision("a1", CHILDREN)
    project.revision("a2", WIDER, after="a1")
    database = project.database()
    migrate(database, "a1")
    rows(url, "INSERT INTO child (id, up) VALUES (9, 99)")
    migrate(database)
    assert ("a2",) == current(database)


def test_unfit_foreign_key(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A foreign key that cannot be checked is mended by a revision."""
    url = fresh_url("sqlite")
    rows(url, "CREATE TABLE parent (code text)")
    rows(url, "CREATE TABLE child (code text REFERENCES parent (code))")
    project = make_project({"main": url})
    project.revision("a1", "op.create_index('ux_code', 'parent', ['code'], unique=True)")
    database = project.database()
    migrate(database)
    assert ("a1",) == current(database)


def test_own_open_session(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A migration beside an open session of the same thread fails at once on SQLite."""
    project = make_project({"main": fresh_url("sqlite")})
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    with database.session() as session:
        session.execute(sa.text("SELECT 1"))
        with pytest.raises(SessionConflict):
            migrate(database)


def test_in_a_sandbox(project: Project, each_url: sa.URL) -> None:
    """Inside a test's sandbox a migration is refused, and the revision can be asked for."""
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    with sandbox(database):
        with pytest.raises(MigrationError, match="'main' is in the sandbox of a test"):
            migrate(database)
        assert () == current(database)
    assert [] == tables(each_url)


def test_another_url_in_a_sandbox(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A sandbox does not stand in the way of migrating a scratch database."""
    scratch = fresh_url("sqlite")
    project = make_project({"main": fresh_url("sqlite")})
    project.revision("a1", CREATE.format("airport"))
    database = project.database()
    config = Config()
    config.set_main_option("script_location", str(project.directory("main")))
    config.attributes.update(application=database.host, url=scratch)
    with sandbox(database):
        command.upgrade(config, "head")
    assert ["airport", "alembic_version"] == tables(scratch)
