"""What migrations write into the record of a database, and when they refuse to run."""

from __future__ import annotations

import getpass
import platform
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from qapla_db import Database
from qapla_db.errors import MigrationError, RecordMismatch
from qapla_db.migrations import current, downgrade, migrate, recreate
from qapla_db.migrations.checksum import checksum_of
from qapla_db.migrations.commands import run_alembic
from qapla_db.record import (
    RECORD_TABLE,
    Record,
    record_of,
    recorded_as,
    rewrite_record,
)
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table({!r})"


def three_steps(project: Project) -> None:
    for number, table in enumerate(("airport", "runway", "gate"), 1):
        after = f"a{number - 1}" if number > 1 else None
        project.revision(f"a{number}", CREATE.format(table), DROP.format(table), after=after)


def record(database: Database, table: str = "alembic_version") -> Record | None:
    with database.engine.connect() as connection:
        return record_of(connection, version_table=table)


def revisions(database: Database) -> list[str]:
    found = record(database)
    assert found is not None
    return sorted(found.revisions)


def stamp(database: Database, revision: str) -> None:
    run_alembic(database, lambda config: command.stamp(config, revision))


def of_environment(project: Project, environment: str) -> Database:
    """Return the database of a new application, as if on a machine of another environment."""
    settings = {"db:main:environment": environment}
    return project.application().run_command(settings).dbs["main"]


def forget(url: sa.URL) -> None:
    """Make a database what it was before there were records."""
    rows(url, f"DROP TABLE {RECORD_TABLE}")


# --- what is written


def test_first_migration(project: Project) -> None:
    """After a migration the database says who it is, and of each revision when and by whom."""
    three_steps(project)
    project.set(environment="staging")
    database = project.database()
    before = datetime.now(UTC) - timedelta(seconds=1)
    migrate(database, "a2")
    found = record(database)
    assert found is not None
    assert ("main", "staging", "alembic_version") == (
        found.name,
        found.environment,
        found.version_table,
    )
    assert ["a1", "a2"] == sorted(found.revisions)
    for name, one in found.revisions.items():
        assert one.applied_at is not None
        assert before <= one.applied_at <= datetime.now(UTC)
        assert f"{getpass.getuser()}@{platform.node()}" == one.applied_by
        assert "SmallApplication" == one.application
        assert one.duration_ms is not None
        assert 0 <= one.duration_ms < 60_000
        path = project.directory("main") / "versions" / f"{name}_.py"
        assert checksum_of(path) == one.checksum


def test_how_long(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """What is recorded as the time of a revision is the time that it took."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", "op.execute('SELECT pg_sleep(0.3)')")
    database = project.database()
    migrate(database)
    found = record(database)
    assert found is not None
    duration = found.revisions["a1"].duration_ms
    assert duration is not None
    assert 300 <= duration
    migrate(database)
    assert found == record(database)


def test_back_and_forth(project: Project) -> None:
    """A revision that is undone is not among the applied ones; done again it is."""
    three_steps(project)
    database = project.database()
    migrate(database)
    downgrade(database, "a1")
    assert ["a1"] == revisions(database)
    migrate(database)
    assert ["a1", "a2", "a3"] == revisions(database)
    downgrade(database, "base")
    assert [] == revisions(database)


def test_stamp(project: Project) -> None:
    """A stamp records what it says is applied, without a duration, and forgets the rest."""
    three_steps(project)
    database = project.database()
    stamp(database, "a2")
    found = record(database)
    assert found is not None
    assert {"a1": None, "a2": None} == {
        key: one.duration_ms for key, one in found.revisions.items()
    }
    assert all(one.applied_by for one in found.revisions.values())
    stamp(database, "a1")
    assert ["a1"] == revisions(database)
    stamp(database, "base")
    assert [] == revisions(database)


def test_stamp_purge(project: Project) -> None:
    """A stamp over an unknown revision leaves what the stamp says."""
    three_steps(project)
    database = project.database()
    migrate(database, "a1")
    rows(database.settings.url, "UPDATE alembic_version SET version_num = 'lost'")
    run_alembic(database, lambda config: command.stamp(config, "a2", purge=True))
    assert ["a1", "a2"] == revisions(database)


def test_stamp_purge_of_all(project: Project) -> None:
    """A purge that stamps nothing leaves nothing, in the version table and in the record."""
    three_steps(project)
    database = project.database()
    run_alembic(database, lambda config: command.stamp(config, "base", purge=True))
    assert record(database) is None
    migrate(database, "a2")
    run_alembic(database, lambda config: command.stamp(config, "base", purge=True))
    assert ((), []) == (current(database), revisions(database))


def test_branches(project: Project) -> None:
    """Of two branches, their merge and what depends on another all are recorded."""
    project.revision("a1", CREATE.format("airport"), DROP.format("airport"))
    project.revision("b1", CREATE.format("runway"), DROP.format("runway"), after="a1")
    project.revision("b2", CREATE.format("gate"), DROP.format("gate"), after="a1")
    merge = project.directory("main") / "versions" / "m1_.py"
    merge.write_text(
        "revision = 'm1'\ndown_revision = ('b1', 'b2')\nbranch_labels = depends_on = None\n"
        "def upgrade(): pass\ndef downgrade(): pass\n"
    )
    database = project.database()
    migrate(database)
    assert ["a1", "b1", "b2", "m1"] == revisions(database)
    forget(database.settings.url)
    stamp(database, "m1")
    migrate(database)
    assert ["a1", "b1", "b2", "m1"] == revisions(database)
    downgrade(database, "a1")
    assert ["a1"] == revisions(database)


# --- with the revision or not at all


def test_of_a_revision_that_fails(project: Project, each_url: sa.URL) -> None:
    """A revision that fails is not recorded; the finished ones before it are, where they stay."""
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", f"{CREATE.format('runway')}\nop.execute('nonsense')", after="a1")
    database = project.database()
    with pytest.raises(MigrationError, match="nonsense"):
        migrate(database)
    if each_url.get_backend_name() == "sqlite":
        assert record(database) is None
    else:
        assert ["a1"] == revisions(database)


def test_first_revision_fails(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A first migration that fails leaves no record, and no table of it."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", "op.execute('nonsense')")
    with pytest.raises(MigrationError, match="nonsense"):
        migrate(project.database())
    assert [] == rows(
        postgresql_database_url, "SELECT 1 FROM pg_class WHERE relname = 'qapla_db_record'"
    )


def test_autocommit_block(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A revision that begins outside of a transaction is recorded like any other."""
    project = make_project({"main": postgresql_database_url})
    project.revision(
        "a1",
        f"""
        with op.get_context().autocommit_block():
            op.execute("SELECT 1")
        {CREATE.format("airport")}
        """,
    )
    database = project.database()
    migrate(database)
    assert ["a1"] == revisions(database)


def test_callers_connection(project: Project, each_url: sa.URL) -> None:
    """On a connection of the caller the record is undone with the caller's transaction."""
    project.revision("a1", "op.execute('INSERT INTO t (id) VALUES (1)')")
    rows(each_url, "CREATE TABLE t (id integer)")
    rows(each_url, "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
    database = project.database()
    config = Config()
    config.set_main_option("script_location", str(project.directory("main")))
    with database.engine.connect() as connection:
        if each_url.get_backend_name() == "sqlite":
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        config.attributes.update(application=database.host, connection=connection)
        with connection.begin() as transaction:
            command.upgrade(config, "head")
            found = record_of(connection)
            assert found is not None
            assert ["a1"] == list(found.revisions)
            transaction.rollback()
        connection.invalidate()
    assert record(database) is None
    assert () == current(database)


# --- where it is


def test_two_names(make_project: MakeProject, each_url: sa.URL) -> None:
    """Two names on one database are recorded each for itself, in either order."""
    project = make_project({"main": each_url, "audit": each_url})
    project.revision("a1", CREATE.format("airport"))
    project.revision("b1", CREATE.format("event"), name="audit")
    app = project.application().run_command()
    for name in ("audit", "main", "audit"):
        migrate(app.dbs[name])
    main = record(app.dbs["main"])
    audit = record(app.dbs["main"], "alembic_version_audit")
    assert main is not None
    assert audit is not None
    assert ("main", ["a1"]) == (main.name, list(main.revisions))
    assert ("audit", ["b1"]) == (audit.name, list(audit.revisions))


def test_schema(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """The record stands in the schema of the version table, and is found there."""
    rows(postgresql_database_url, "CREATE SCHEMA ours")
    project = make_project({"main": postgresql_database_url})
    project.set(environment="Production")
    project.write_env("main", version_table_schema="ours", version_table="versions")
    three_steps(project)
    database = project.database()
    migrate(database)
    assert [("ours", "ours.versions", 4)] == rows(
        postgresql_database_url,
        "SELECT n.nspname, version_table, count(*) FROM ours.qapla_db_record "
        "JOIN pg_class ON relname = 'qapla_db_record' JOIN pg_namespace n ON n.oid = relnamespace "
        "GROUP BY 1, 2",
    )
    assert ["Production"] == [one.environment for one in recorded_as(database.settings)]


def test_offline(project: Project, each_url: sa.URL) -> None:
    """The SQL of --sql has no record in it: who runs it, and where, is not known."""
    three_steps(project)
    result = project.alembic("upgrade", "head", "--sql")
    assert 0 == result.returncode
    assert RECORD_TABLE not in result.stdout
    assert [] == tables(each_url)


def test_memory(make_project: MakeProject) -> None:
    """A database in memory has its record as well."""
    project = make_project({"main": "sqlite://"})
    three_steps(project)
    database = project.database()
    migrate(database)
    assert ["a1", "a2", "a3"] == revisions(database)


def test_another_url(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """The record is written to the database that is migrated, not to that of the settings."""
    scratch = fresh_url("sqlite")
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    database = project.database()
    run_alembic(database, lambda config: command.upgrade(config, "head"), url=scratch)
    assert [(3,)] == rows(scratch, "SELECT count(*) FROM qapla_db_record WHERE revision <> ''")
    assert record(database) is None


def test_autogenerate_sees_no_record(project: Project) -> None:
    """Autogenerate neither drops nor mentions the table of the record."""
    three_steps(project)
    migrate(project.database())
    output = project.run("revision", "--autogenerate", "-m", "nothing")
    assert "airport" in output  # which no model has
    assert RECORD_TABLE not in output
    assert ["a1_.py", "a2_.py", "a3_.py"] == project.versions()


# --- databases that were migrated before there were records


def test_older_database(project: Project, each_url: sa.URL) -> None:
    """The next migration records what was applied before, without inventing when and by whom."""
    three_steps(project)
    database = project.database()
    migrate(database, "a2")
    forget(each_url)
    migrate(database)
    found = record(database)
    assert found is not None
    assert ["a1", "a2", "a3"] == sorted(found.revisions)
    old, new = found.revisions["a1"], found.revisions["a3"]
    assert (None, None, None) == (old.applied_at, old.applied_by, old.duration_ms)
    assert checksum_of(project.directory("main") / "versions" / "a1_.py") == old.checksum
    assert new.applied_at is not None


def test_older_database_with_nothing_to_do(project: Project, each_url: sa.URL) -> None:
    """An upgrade that has nothing to do gives an older database its record."""
    three_steps(project)
    database, lines = project.database(), list[str]()
    migrate(database)
    forget(each_url)
    migrate(database, report=lines.append)
    assert ["main: nothing to do, at a3"] == lines
    assert ["a1", "a2", "a3"] == revisions(database)


def test_nothing_to_do_and_no_right_to_write(
    make_project: MakeProject, postgresql_database_url: sa.URL, caplog: pytest.LogCaptureFixture
) -> None:
    """An upgrade with nothing to do is no error where the record cannot be written."""
    project = make_project({"main": postgresql_database_url})
    three_steps(project)
    migrate(project.database())
    forget(postgresql_database_url)
    name = postgresql_database_url.database
    rows(postgresql_database_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    migrate(project.database())
    assert "the record of 'main' could not be written" in caplog.text


# --- another database than the settings say


def test_another_environment(project: Project, each_url: sa.URL) -> None:
    """A copy of production is refused before anything runs, until its record is made right."""
    three_steps(project)
    migrate(of_environment(project, "production"), "a1")
    database = of_environment(project, "development")
    for attempt in (
        lambda: migrate(database),
        lambda: downgrade(database, "base"),
        lambda: stamp(database, "a3"),
    ):
        with pytest.raises(RecordMismatch, match="recorded as main@production") as caught:
            attempt()
    message = str(caught.value)
    assert "the settings say main@development" in message
    assert "rewrite_record(app.dbs['main'], confirm='main@production')" in message
    assert ["airport", "alembic_version"] == tables(each_url)
    assert ("a1",) == current(database), "looking is allowed"
    database.dispose()
    rewrite_record(database, confirm="main@production")
    migrate(database)
    assert ["a1", "a2", "a3"] == revisions(database)


def test_another_name(make_project: MakeProject, each_url: sa.URL) -> None:
    """A database that is another name's is not migrated by this one."""
    audit = make_project({"audit": each_url}, directory="one")
    audit.revision("b1", CREATE.format("event"), name="audit")
    migrate(audit.database("audit"))
    main = make_project({"main": each_url}, directory="two")
    main.revision("a1", CREATE.format("airport"))
    with pytest.raises(RecordMismatch, match=r"recorded as audit@development"):
        migrate(main.database())
    result = main.alembic("upgrade", "head")
    assert 255 == result.returncode
    assert result.stdout.startswith("FAILED: the database 'main' at ")
    assert 1 == result.stdout.count("\n")
    assert ["alembic_version", "event"] == tables(each_url)


def test_spelling_of_the_environment(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """Case and spaces make no other environment."""
    project = make_project({"main": fresh_url("sqlite")})
    three_steps(project)
    migrate(of_environment(project, "Staging"), "a1")
    migrate(of_environment(project, " staging "))
    with pytest.raises(RecordMismatch, match="recorded as main@Staging"):
        migrate(of_environment(project, "stage"))


# --- tests


def test_of_tests(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A database of the tests says so, and can be made anew again and again."""
    project = make_project({"main": fresh_url("sqlite")}, {"main": fresh_url("sqlite")})
    three_steps(project)
    for _ in range(2):
        database = project.application().run_tests().dbs["main"]
        recreate(database)
        found = record(database)
        assert found is not None
        assert "tests" == found.environment
        migrate(database)


def test_recreate_of_another_environment(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A test database whose setting has changed is made anew with the new one."""
    url = fresh_url("sqlite")
    project = make_project({"main": fresh_url("sqlite")}, {"main": url})
    three_steps(project)
    recreate(project.application().run_tests().dbs["main"])
    app = project.application().run_tests({"db:main:environment": "ci"})
    recreate(app.dbs["main"])
    found = record(app.dbs["main"])
    assert found is not None
    assert "ci" == found.environment
