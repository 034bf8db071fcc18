"""Migrations from within a program."""

from __future__ import annotations

import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import (
    MigrationError,
    MigrationIncomplete,
    NotPrepared,
    Refused,
    ServerError,
    SettingMissing,
)
from qapla_db.migrations import current, downgrade, migrate, recreate
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables
from tests.support import SmallApplication

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table({!r})"


def two_steps(project: Project) -> None:
    project.revision("a1", CREATE.format("airport"), DROP.format("airport"), doc="airports")
    project.revision(
        "a2", CREATE.format("runway"), DROP.format("runway"), after="a1", doc="runways"
    )


def test_migrate_and_back(project: Project, each_url: sa.URL) -> None:
    """A database is taken to head, to a revision between and back to nothing."""
    two_steps(project)
    database = project.database()
    assert () == current(database)
    migrate(database)
    assert ("a2",) == current(database)
    assert ["airport", "alembic_version", "runway"] == tables(each_url)
    downgrade(database, "a1")
    assert ("a1",) == current(database)
    assert ["airport", "alembic_version"] == tables(each_url)
    migrate(database, "+1")
    assert ("a2",) == current(database)
    downgrade(database, "base")
    assert () == current(database)
    assert ["alembic_version"] == tables(each_url)


def test_report(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step is reported to the function that was passed, and nothing is printed."""
    two_steps(project)
    database, lines = project.database(), list[str]()
    migrate(database, report=lines.append)
    migrate(database, report=lines.append)
    downgrade(database, "a1", report=lines.append)
    assert [
        "main: base -> a1 airports",
        "main: a1 -> a2 runways",
        "main: nothing to do, at a2",
        "main: a2 -> a1 undo runways",
    ] == lines
    migrate(database)
    assert ("", "") == tuple(capsys.readouterr())


def test_current_changes_nothing(project: Project, each_url: sa.URL) -> None:
    """Looking at a database that was never migrated creates no table in it."""
    two_steps(project)
    assert () == current(project.database())
    assert [] == tables(each_url)


def test_alembic_ini_is_not_read(project: Project) -> None:
    """A broken alembic.ini in the working directory is none of migrate()'s business."""
    two_steps(project)
    (project.root / "alembic.ini").write_text("no ini file at all")
    database = project.database()
    migrate(database)
    assert ("a2",) == current(database)


@pytest.mark.parametrize("directory", ["100%", "50% of %(here)s", "a b", "c:d"])
def test_odd_paths(make_project: MakeProject, fresh_url: FreshURL, directory: str) -> None:
    """A percent sign, a colon or a space in the path of the migrations is harmless."""
    if sys.platform == "win32" and ":" in directory:
        pytest.skip("no colon in a path on Windows")
    project = make_project({"main": fresh_url("sqlite")}, directory=directory)
    two_steps(project)
    database = project.database()
    migrate(database)
    assert ("a2",) == current(database)
    assert "main: nothing to do, at a2\n" == project.run("upgrade", "head")


def test_memory(make_project: MakeProject) -> None:
    """A database in memory is migrated on its one connection, which enforces keys afterwards."""
    project = make_project({"main": "sqlite://"})
    two_steps(project)
    database = project.database()
    migrate(database)
    assert ("a2",) == current(database)
    with database.session() as session:
        assert 1 == session.scalar(sa.text("PRAGMA foreign_keys"))
        assert [] == session.execute(sa.text("SELECT * FROM runway")).all()


def test_recreate(make_project: MakeProject, fresh_url: FreshURL, each_url: sa.URL) -> None:
    """The database of the tests is dropped with its rows, created and migrated."""
    main = each_url.set(database=f"{each_url.database}_other")
    project = make_project({"main": main}, tests={"main": each_url})
    two_steps(project)
    database = project.application().run_tests().dbs["main"]
    migrate(database)
    rows(each_url, "INSERT INTO airport (id) VALUES (7)")
    recreate(database)
    assert [] == rows(each_url, "SELECT id FROM airport")
    assert ("a2",) == current(database)


def test_recreate_missing(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A test database that does not exist yet is created and migrated."""
    project = make_project({"main": fresh_url("sqlite")}, {"main": fresh_url("postgresql")})
    two_steps(project)
    database = project.application().run_tests().dbs["main"]
    recreate(database)
    assert ("a2",) == current(database)


def test_recreate_with_two_names(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A database that two names lead to has the tables of both afterwards."""
    url = fresh_url("sqlite")
    project = make_project({"main": "sqlite://", "audit": "sqlite://"}, {"main": url, "audit": url})
    project.revision("a1", CREATE.format("airport"))
    project.revision("b1", CREATE.format("event"), name="audit")
    app = project.application().run_tests()
    for database in app.dbs.values():
        recreate(database)
    assert ["airport", "alembic_version", "alembic_version_audit", "event"] == tables(url)


def test_recreate_in_a_sandbox(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Inside a test's sandbox the database is not dropped."""
    url = fresh_url("sqlite")
    project = make_project({"main": "sqlite://"}, {"main": url})
    two_steps(project)
    database = project.application().run_tests().dbs["main"]
    recreate(database)
    with sandbox(database), pytest.raises(MigrationError, match="sandbox of a test"):
        recreate(database)
    assert ["airport", "alembic_version", "runway"] == tables(url)


def test_recreate_refuses(project: Project, each_url: sa.URL) -> None:
    """An application that is prepared for commands does not lose its database."""
    two_steps(project)
    database = project.database()
    migrate(database)
    rows(each_url, "INSERT INTO airport (id) VALUES (7)")
    with pytest.raises(Refused, match=r"'main'.*is not dropped.*'command'"):
        recreate(database)
    assert [(7,)] == rows(each_url, "SELECT id FROM airport")


def test_recreate_looks_first(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Nothing is dropped when the migrations to bring it back are not there."""
    url = fresh_url("sqlite")
    project = make_project({"main": fresh_url("sqlite")}, {"main": url})
    two_steps(project)
    database = project.application().run_tests().dbs["main"]
    recreate(database)
    (project.directory("main") / "env.py").unlink()
    with pytest.raises(MigrationError, match=r"'main' \('migrations_main' in paths\) has no env"):
        recreate(database)
    assert ["airport", "alembic_version", "runway"] == tables(url)


def test_unknown_revision(project: Project) -> None:
    """A revision that does not exist is an error of ours that names it."""
    two_steps(project)
    with pytest.raises(MigrationError, match=r"'main' cannot be migrated: .*'nope'"):
        migrate(project.database(), "nope")


def test_two_heads(project: Project) -> None:
    """With two heads 'head' is an error, and 'heads' takes the database to both."""
    two_steps(project)
    project.revision("a3", CREATE.format("gate"), after="a1")
    database = project.database()
    with pytest.raises(MigrationError, match="Multiple head revisions"):
        migrate(database)
    migrate(database, "heads")
    assert ("a2", "a3") == current(database)


def test_no_revisions(project: Project) -> None:
    """A directory without revisions leaves the database empty, and says that it is at base."""
    database, lines = project.database(), list[str]()
    migrate(database, report=lines.append)
    assert ["main: nothing to do, at base"] == lines


def test_env_that_does_nothing(project: Project) -> None:
    """An env.py that forgets run() is an error, not a silent nothing."""
    two_steps(project)
    (project.directory("main") / "env.py").write_text("")
    with pytest.raises(MigrationIncomplete, match=r"nothing was done.*'main'"):
        migrate(project.database())


def test_not_prepared() -> None:
    """A database that no application has prepared says so."""
    with pytest.raises(NotPrepared, match="'main'"):
        migrate(Database("main"))


def test_no_path() -> None:
    """An application without the path of the migrations is told which key to set."""
    app = SmallApplication()
    app.prepare("command", {"db:main:url": "sqlite://"})
    with pytest.raises(SettingMissing, match="'migrations_main'"):
        migrate(app.dbs["main"])


def test_missing_server_database(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A database that is not there is named, with the setting and the next step."""
    project = make_project({"main": fresh_url("postgresql")})
    two_steps(project)
    with pytest.raises(ServerError, match=r"'main' at .*'db:main:url'.*\.create\(\)"):
        migrate(project.database())


def test_no_connection_is_left(project: Project, each_url: sa.URL) -> None:
    """Five upgrades in one process leave no connection behind."""
    two_steps(project)
    database = project.database()
    for _ in range(5):
        migrate(database)
        downgrade(database, "base")
    assert 0 == connections(each_url)
    assert 0 == database.engine.pool.checkedout()  # type: ignore[attr-defined]


def connections(url: sa.URL) -> int:
    """Count the other connections to a database."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()",
        "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = database() "
        "AND id <> connection_id()",
        "sqlite": "SELECT 0",
    }[url.get_backend_name()]
    return int(rows(url, query)[0][0])


def test_threads(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Two threads that migrate two databases at once get each table where it belongs."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    for name in urls:
        for number in range(8):
            after = f"{name}{number - 1}" if number else None
            project.revision(
                f"{name}{number}", CREATE.format(f"{name}_{number}"), after=after, name=name
            )
    app = project.application().run_command()
    start = threading.Barrier(2)

    def run(name: str) -> None:
        start.wait(20)
        migrate(app.dbs[name])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, urls))
    for name, url in urls.items():
        assert [*(["alembic_version"]), *[f"{name}_{n}" for n in range(8)]] == sorted(tables(url))


def test_one_after_the_other(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Two databases are migrated one after the other in one process, back and forth."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    project.revision("a1", CREATE.format("airport"))
    project.revision("b1", CREATE.format("event"), name="audit")
    app = project.application().run_command()
    for name in ("main", "audit", "main"):
        migrate(app.dbs[name])
    assert ["airport", "alembic_version"] == tables(urls["main"])
    assert ["alembic_version", "event"] == tables(urls["audit"])


def test_inside_a_migration(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A revision that migrates another database gets an error, and nothing is mixed up."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    project.revision(
        "a1",
        f"""
        from qapla_db.migrations import migrate
        from alembic import context
        migrate(context.config.attributes["application"].dbs["audit"])
        {CREATE.format("airport")}
        """,
    )
    project.revision("b1", CREATE.format("event"), name="audit")
    app = project.application().run_command()
    with pytest.raises(MigrationError, match="'audit' was started inside the migration of 'main'"):
        migrate(app.dbs["main"])
    migrate(app.dbs["audit"])
    assert ["alembic_version", "event"] == tables(urls["audit"])


def test_stream(project: Project) -> None:
    """Reports can go to a stream."""
    two_steps(project)
    stream = io.StringIO()
    migrate(project.database(), report=lambda line: print(line, file=stream))
    assert "main: base -> a1 airports\nmain: a1 -> a2 runways\n" == stream.getvalue()
