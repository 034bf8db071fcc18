"""Which application, which database, which tables: what env.py decides."""

from __future__ import annotations

import pickle
from logging import getLogger
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from qapla_db import Database, DatabaseApplication
from qapla_db.errors import (
    AlreadyPrepared,
    Closed,
    MigrationError,
    NotPrepared,
    QaplaError,
    SettingInvalid,
    UnknownDatabase,
)
from qapla_db.migrations import current, migrate
from qapla_db.migrations.command_error import as_command_error
from qapla_db.record import usual_version_table
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables
from tests.support import make_application

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"


@pytest.fixture
def two(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project with a database for commands and another for tests, and one revision."""
    project = make_project({"main": fresh_url("sqlite")}, {"main": fresh_url("sqlite")})
    project.revision("a1", CREATE.format("airport"))
    return project


def config(project: Project, **attributes: Any) -> Config:
    """Return a configuration as a program of the user's makes it, without a file."""
    found = Config()
    found.set_main_option("script_location", str(project.directory("main")))
    found.attributes.update(attributes)
    return found


def urls(project: Project) -> tuple[sa.URL, sa.URL]:
    """Return the URLs of main for commands and for tests."""
    with project.application().run_command() as app, project.application().run_tests() as tests:
        return app.dbs["main"].settings.url, tests.dbs["main"].settings.url


# --- is_test


@pytest.mark.parametrize(
    "value, is_test",
    [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), ("no", False)],
)
def test_is_test_in_the_ini_file(two: Project, value: str, is_test: bool) -> None:
    """is_test in the ini section is read as a boolean."""
    command_url, tests_url = urls(two)
    two.write_ini(is_test=value)
    result = two.alembic("upgrade", "head")
    assert 0 == result.returncode, result.stderr
    assert is_test == ("airport" in tables(tests_url))
    assert is_test != ("airport" in tables(command_url))


def test_is_test_on_the_command_line(two: Project) -> None:
    """-x is_test=true wins over the ini file and prepares the application for tests."""
    command_url, tests_url = urls(two)
    two.write_ini(is_test="false")
    result = two.alembic("-x", "is_test=true", "upgrade", "head")
    assert 0 == result.returncode, result.stderr
    assert "airport" in tables(tests_url)
    assert "airport" not in tables(command_url)


@pytest.mark.parametrize("value", ["maybe", "2", ""])
def test_is_test_is_junk(two: Project, value: str) -> None:
    """Any other value is an error that names it, and nothing is migrated."""
    result = two.alembic("-x", f"is_test={value}", "upgrade", "head")
    assert 255 == result.returncode
    assert f"FAILED: -x is_test is {value!r}; write true or false\n" == result.stdout
    assert "" == result.stderr


def test_is_test_of_another_endpoint(two: Project) -> None:
    """Tests asked for while prepared for commands is an error, and the other way round."""
    for endpoint, value in (("command", "true"), ("tests", "false")):
        app = two.application()
        app.prepare(endpoint)
        found = config(two, application=app)
        found.set_main_option("is_test", value)
        with pytest.raises(AlreadyPrepared, match=f"is_test={value} .* prepared for '{endpoint}'"):
            command.upgrade(found, "head")
    assert [] == [name for url in urls(two) for name in tables(url)]


# --- the application


def test_prepared_once(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that is prepared is used as it is; one that is not is prepared once."""
    module = __import__(two.module)
    prepared: list[str] = []
    original = DatabaseApplication.prepare

    def prepare(self: DatabaseApplication, endpoint: str, settings: Any = None) -> None:
        prepared.append(endpoint)
        original(self, endpoint, settings)

    monkeypatch.setattr(DatabaseApplication, "prepare", prepare)
    for _ in range(3):
        command.upgrade(config(two), "head")
    assert ["command"] == prepared
    assert "command" == module.app.endpoint


def test_application_handed_over(two: Project, fresh_url: FreshURL) -> None:
    """An application handed over wins over the one that env.py imports, which stays unprepared."""
    url = fresh_url("sqlite")
    other = make_application({"main": url}, endpoint="wsgi")
    command.upgrade(config(two, application=other), "head")
    assert "airport" in tables(url)
    assert None is __import__(two.module).app.endpoint


def test_url_handed_over(two: Project, fresh_url: FreshURL) -> None:
    """A URL handed over is migrated instead of the one of the settings."""
    url = fresh_url("sqlite")
    command.upgrade(config(two, url=url), "head")
    assert "airport" in tables(url)
    assert [] == tables(urls(two)[0])


def test_closed_application(two: Project) -> None:
    """An application that was closed is an error that says so."""
    app = two.application().run_command()
    app.close()
    with pytest.raises(Closed, match="make a new one"):
        command.upgrade(config(two, application=app), "head")


def test_unknown_name(two: Project) -> None:
    """A name that is not registered is an error with the names that are, one line of it."""
    two.directory("main").joinpath("env.py").write_text(
        two.directory("main").joinpath("env.py").read_text().replace("'main'", "'mian'")
    )
    with pytest.raises(UnknownDatabase, match="'mian'; registered: 'main'"):
        command.upgrade(config(two), "head")
    result = two.alembic("upgrade", "head")
    assert result.stdout.startswith("FAILED: no database is named 'mian'; registered: 'main'.")
    assert "" == result.stderr


# --- a connection of the caller


def test_connection_handed_over(project: Project, each_url: sa.URL) -> None:
    """On a connection of the caller nothing is committed by us."""
    project.revision("a1", "op.execute('INSERT INTO t (id) VALUES (1)')")
    rows(each_url, "CREATE TABLE t (id integer)")
    rows(each_url, "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)")
    database = project.database()
    with database.engine.connect() as connection:
        if each_url.get_backend_name() == "sqlite":
            connection.connection.execute("PRAGMA foreign_keys = OFF")
        with connection.begin() as transaction:
            command.upgrade(
                config(project, application=database.host, connection=connection), "head"
            )
            assert 1 == connection.execute(sa.text("SELECT id FROM t")).scalar()
            transaction.rollback()
        connection.invalidate()
    assert [] == rows(each_url, "SELECT id FROM t")
    assert () == current(database)


def test_connection_with_foreign_keys(two: Project) -> None:
    """A SQLite transaction in which a changed table would lose its children is refused."""
    database = two.database()
    with database.engine.begin() as connection:
        with pytest.raises(MigrationError, match="PRAGMA foreign_keys = OFF before"):
            command.upgrade(config(two, application=database.host, connection=connection), "head")


# --- the directory


def test_directory_of_another_database(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """An env.py copied with the name of another database migrates neither."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    project.revision("b1", CREATE.format("event"), name="audit")
    env = project.directory("audit") / "env.py"
    env.write_text(env.read_text().replace("'audit'", "'main'"))
    app = project.application().run_command()
    with pytest.raises(MigrationError, match="run for the database 'audit', but hands 'main'"):
        migrate(app.dbs["audit"])
    result = project.alembic("-n", "audit", "upgrade", "head")
    assert 255 == result.returncode
    assert "is of the database 'main', but its migrations directory is" in result.stdout
    assert [] == [name for url in urls.values() for name in tables(url)]


def test_misspelt_section(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """alembic -n with a section that is not there is an error, and migrates nothing."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    project.revision("a1", CREATE.format("airport"))
    result = project.alembic("-n", "mian", "upgrade", "head")
    assert 255 == result.returncode
    assert [] == [name for url in urls.values() for name in tables(url)]


def test_misspelt_section_beside_pyproject(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """With a [tool.alembic] in pyproject.toml, too, a wrong -n runs nobody's migrations."""
    urls = {"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")}
    project = make_project(urls)
    project.revision("a1", CREATE.format("airport"))
    text = '[tool.alembic]\nscript_location = "migrations/main"\npath_separator = "os"\n'
    (project.root / "pyproject.toml").write_text(text)
    result = project.alembic("-n", "mian", "upgrade", "head")
    assert 255 == result.returncode
    assert [] == [name for url in urls.values() for name in tables(url)]
    # before 1.16 Alembic reads no pyproject.toml, and says itself that there is nothing
    ours, theirs = "has no section [mian] (it has: alembic, audit)", "has no '[mian]' section"
    said = result.stdout + result.stderr
    assert (ours if hasattr(Config, "get_alembic_option") else theirs) in said
    assert 0 == project.alembic("upgrade", "head").returncode


# --- version tables


def test_plain_version_table(two: Project) -> None:
    """A database alone on its URL has Alembic's usual version table."""
    migrate(two.database())
    assert ["airport", "alembic_version"] == tables(urls(two)[0])


def test_two_names_on_one_url(make_project: MakeProject, each_url: sa.URL) -> None:
    """Two names of one database have a version table each and leave each other's tables alone."""
    project = make_project({"main": each_url, "audit": each_url})
    project.revision("a1", CREATE.format("airport"), "op.drop_table('airport')")
    project.revision("b1", CREATE.format("event"), "op.drop_table('event')", name="audit")
    for name, table in (("main", "airport"), ("audit", "event")):
        project.write_env(
            name,
            f"Model = sa.MetaData()\nsa.Table('{table}', Model, "
            "sa.Column('id', sa.Integer, primary_key=True))",
        )
    app = project.application().run_command()
    for database in app.dbs.values():
        migrate(database)
    assert ["airport", "alembic_version", "alembic_version_audit", "event"] == tables(each_url)
    assert [("a1",), ("b1",)] == [current(database) for database in app.dbs.values()]
    for section in ("alembic", "audit"):
        assert "No new upgrade operations detected.\n" in project.run("-n", section, "check")


def test_version_table_of_who_was_alone(fresh_url: FreshURL) -> None:
    """A database keeps its version table when another name is registered after it."""
    url = fresh_url("sqlite")
    alone = make_application({"main": url})
    shared = make_application({"main": url, "audit": url, "third": fresh_url("sqlite")})
    assert "alembic_version" == usual_version_table(alone.dbs["main"])
    assert ["alembic_version", "alembic_version_audit", "alembic_version"] == [
        usual_version_table(database) for database in shared.dbs.values()
    ]


def test_version_table_of_the_user(two: Project) -> None:
    """A version table that env.py names is taken."""
    two.write_env("main", version_table="versions")
    database = two.database()
    migrate(database)
    assert ["airport", "versions"] == tables(urls(two)[0])
    assert ("a1",) == current(database)


# --- what is left untouched


def test_logging_is_untouched(two: Project) -> None:
    """The application's loggers are after a migration what they were before."""
    ours = getLogger("application.of.mine")
    root = getLogger()

    def state() -> list[object]:
        return [
            ours.disabled,
            ours.level,
            list(ours.handlers),
            root.level,
            list(root.handlers),
            getLogger("alembic").level,
        ]

    before = state()
    migrate(two.database())
    command.upgrade(config(two), "head")
    assert before == state()


# --- offline


def test_offline(project: Project, each_url: sa.URL) -> None:
    """--sql prints SQL and nothing else, and touches no database."""
    project.revision("a1", CREATE.format("airport"), "op.drop_table('airport')", doc="airports")
    project.revision("a2", 'op.execute("INSERT INTO airport (id) VALUES (7)")', after="a1")
    result = project.alembic("upgrade", "head", "--sql")
    assert (0, "") == (result.returncode, result.stderr)
    assert "INSERT INTO airport (id) VALUES (7);" in result.stdout
    assert "main:" not in result.stdout
    assert [] == tables(each_url)
    back = project.alembic("downgrade", "a2:base", "--sql")
    assert "DROP TABLE airport;" in back.stdout


def test_offline_runs(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """The SQL of --sql does what the migration does."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    project.revision("a1", CREATE.format("airport"))
    script = project.alembic("upgrade", "head", "--sql").stdout
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.connection.executescript(script)
    assert ("a1",) == current(project.database())


# --- errors


def test_errors_are_both() -> None:
    """An error out of env.py is of its own class and Alembic's, and survives pickling."""
    plain = SettingInvalid("db:main:url is wrong", key="db:main:url")
    shown = as_command_error(plain)
    for error in (shown, pickle.loads(pickle.dumps(shown))):
        assert isinstance(error, SettingInvalid)
        assert isinstance(error, CommandError)
        assert isinstance(error, QaplaError)
        assert ("db:main:url", "db:main:url is wrong") == (error.key, str(error))
    assert shown is as_command_error(shown)


PASSWORD = "s3cr3t%40x"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_unreachable(make_project: MakeProject, request: pytest.FixtureRequest, kind: str) -> None:
    """No server, a missing database: one line with name, address and setting, no password."""
    server: sa.URL = request.getfixturevalue(f"{kind}_url")
    missing = server.set(database="no_such_test", password=PASSWORD)
    nobody = sa.make_url(f"{kind}://ann:{PASSWORD}@127.0.0.1:9/no_such_test")
    for url in (missing, nobody):
        project = make_project({"main": url}, directory=f"of_{url.username}")
        project.revision("a1", CREATE.format("airport"))
        result = project.alembic("upgrade", "head")
        assert 255 == result.returncode
        assert result.stdout.startswith("FAILED: the database 'main' at ")
        assert 1 == result.stdout.count("\n")
        for word in ("no_such_test", "'db:main:url'", "app.dbs['main'].create()"):
            assert word in result.stdout
        assert "" == result.stderr
        assert "s3cr3t" not in result.stdout


def test_wrong_password(make_project: MakeProject, mariadb_url: sa.URL) -> None:
    """A wrong password is said without the password."""
    project = make_project({"main": mariadb_url.set(database="x", password="s3cr3t")})
    result = project.alembic("upgrade", "head")
    assert 255 == result.returncode
    assert "Access denied for user 'root'" in result.stdout
    assert "s3cr3t" not in result.stdout + result.stderr


def test_database_alone() -> None:
    """A database that was never prepared has no version table to name."""
    with pytest.raises(NotPrepared):
        usual_version_table(Database("main"))
