"""BaseApplicationFixture in projects of their own, each run by a pytest of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from textwrap import dedent

import pytest

from tests.testing.forked import run_project

SETTINGS = """
def make_settings(settings, paths):
    for name in ("main", "audit"):
        settings[f"db:{name}:url"] = f"sqlite:///{paths.get('project_root')}/FILE"
        paths.set(f"migrations_{name}", "migrations", "project_root")
"""

ENV = """
from qapla_db.env import AlembicEnv
from alembic import context
from ships import Model
AlembicEnv(None, Model, context.config.attributes["database"]).run()
"""

REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None

def upgrade():
    op.create_table(
        "ship", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String)
    )

def downgrade():
    op.drop_table("ship")
"""

SHIPS = """
from qapla_db import Database, DatabaseApplication, WithDatabase
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Model(DeclarativeBase):
    pass

class Ship(Model):
    __tablename__ = "ship"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

class OneApplication(DatabaseApplication):
    def append_app_plugins(self):
        self.add_database_app([Database("main", "migrations_main")])

class TwoApplication(DatabaseApplication):
    settings_package = "other_settings"

    def append_app_plugins(self):
        databases = [Database("main", "migrations_main"), Database("audit", "migrations_audit")]
        self.add_database_app(databases)

one = OneApplication()

@WithDatabase(one, "main")
def christen(name, main):
    main.add(Ship(name=name))
    main.commit()
"""

STRICT = ("-W", "error", "--strict-markers", "--strict-config", "-p", "no:cacheprovider")

HEAD = """
import pytest
from qapla_db.testing import BaseApplicationFixture
from ships import OneApplication, Ship, TwoApplication, christen, one
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An application with two databases on SQLite, and another one."""
    files: Mapping[str, str] = {
        "settings/__init__.py": "",
        "settings/default.py": SETTINGS.replace("FILE", "{name}.sqlite3"),
        "settings/tests.py": SETTINGS.replace("FILE", "one_{name}_test.sqlite3"),
        "other_settings/__init__.py": "",
        "other_settings/default.py": SETTINGS.replace("FILE", "{name}.sqlite3"),
        "other_settings/tests.py": SETTINGS.replace("FILE", "two_{name}_test.sqlite3"),
        "migrations/env.py": ENV,
        "migrations/versions/0001_ships.py": REVISION,
        "ships.py": SHIPS,
        "conftest.py": "",
    }
    for name, text in files.items():
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return pytester


def run(project: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    (project.path / "test_it.py").write_text(HEAD + dedent(tests))
    return run_project(project, *STRICT, *arguments)


def test_isolation(project: pytest.Pytester) -> None:
    """Tests see an empty migrated database each, whatever the others commit, in any order."""
    result = run(
        project,
        """
        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            @pytest.mark.parametrize("again", range(3))
            def test_task(self, dbsession, again):
                assert [] == dbsession.query(Ship).all()
                christen("Rotarran")
                assert ["Rotarran"] == [ship.name for ship in dbsession.query(Ship)]

            def test_dbsession_commits(self, dbsession, dbplugin):
                dbsession.add(Ship(name="Ning'tao"))
                dbsession.commit()
                with dbplugin["main"].session(read_only=True) as other:
                    assert ["Ning'tao"] == [ship.name for ship in other.query(Ship)]

            def test_engine(self, application):
                with application.dbs["main"].engine.begin() as connection:
                    connection.exec_driver_sql("INSERT INTO ship (name) VALUES ('raw')")

            def test_the_fixture_is_the_module_s_application(self, application, settings, paths):
                assert application is one
                assert settings is one.settings and paths is one.paths

            @pytest.mark.parametrize("again", range(2))
            def test_that_names_no_fixture(self, again):
                christen("unseen")
                with one.dbs["main"].session() as session:
                    assert ["unseen"] == [ship.name for ship in session.query(Ship)]


        class TestTwo(BaseApplicationFixture):
            APP_CLASS = TwoApplication
            DATABASE_KEY = "audit"

            def test_two(self, application, dbplugin, dbsession):
                assert isinstance(application, TwoApplication)
                assert "audit" == dbsession.database_name
                for name in ("main", "audit"):
                    with dbplugin[name].transaction() as session:
                        assert [] == session.query(Ship).all()
                        session.add(Ship(name=name))
                assert ["audit"] == [ship.name for ship in dbsession.query(Ship)]
        """,
    )
    result.assert_outcomes(passed=9)
    for name in ("one_main", "two_main", "two_audit"):
        with sqlite3.connect(project.path / f"{name}_test.sqlite3") as connection:
            assert (0,) == connection.execute("SELECT count(*) FROM ship").fetchone()
        connection.close()
    assert not (project.path / "main.sqlite3").exists()


def test_made_anew(project: pytest.Pytester) -> None:
    """What a former run left in the test database is gone."""
    path = project.path / "one_main_test.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ship (id INTEGER)")
        connection.execute("CREATE TABLE stale (id INTEGER)")
    connection.close()
    result = run(
        project,
        """
        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_it(self, dbsession):
                assert [] == dbsession.query(Ship).all()
                names = dbsession.connection().exec_driver_sql("SELECT name FROM sqlite_master")
                assert "stale" not in names.scalars().all()
        """,
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("main.sqlite3", "*is the database that 'wsgi' uses*"),
        ("sub/../main.sqlite3", "*is the database that 'wsgi' uses*"),
        ("latest.sqlite3", "*has no part 'test'*"),
    ],
)
def test_precious_data(project: pytest.Pytester, file: str, reason: str) -> None:
    """A database that may not be one for tests is refused, and keeps its rows."""
    (project.path / "sub").mkdir()
    (project.path / "settings" / "tests.py").write_text(SETTINGS.replace("FILE", file))
    path = project.path / file
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ship (id INTEGER)")
        connection.execute("INSERT INTO ship VALUES (1)")
    connection.close()
    result = run(
        project,
        """
        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_it(self, dbsession): ...
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*Refused: {reason}"])
    with sqlite3.connect(path) as connection:
        assert (1,) == connection.execute("SELECT count(*) FROM ship").fetchone()
    connection.close()


def test_misuse(project: pytest.Pytester) -> None:
    """A class without an application, an ambiguous one and one that serves requests say so."""
    result = run(
        project,
        """
        class TestNone(BaseApplicationFixture):
            def test_it(self, application): ...


        class TestServing(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_it(self, application): ...


        class TestSeveral(BaseApplicationFixture):
            APP_CLASS = TwoApplication

            def test_it(self, application): ...


        two = TwoApplication(), TwoApplication()
        one.run_command()
        """,
        "-p",
        "no:randomly",
    )
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        [
            "*Misuse: TestNone needs APP_CLASS*",
            "*AlreadyPrepared: *prepared for 'command'*",
            "*Misuse: there are 2 objects of TwoApplication*",
        ]
    )


def test_chosen_object(project: pytest.Pytester) -> None:
    """A class says which of several objects it tests."""
    result = run(
        project,
        """
        first, second = TwoApplication(), TwoApplication()


        class TestSecond(BaseApplicationFixture):
            APP_CLASS = TwoApplication

            @classmethod
            def make_application(cls):
                return second

            def test_it(self, application):
                assert application is second
        """,
    )
    result.assert_outcomes(passed=1)


def test_fails_like_the_code(project: pytest.Pytester) -> None:
    """A test that fails leaves nothing to the next one."""
    result = run(
        project,
        """
        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            @pytest.mark.parametrize("again", range(2))
            def test_it(self, dbsession, again):
                assert [] == dbsession.query(Ship).all()
                christen("Rotarran")
                dbsession.add(Ship(name="open"))
                dbsession.flush()
                raise RuntimeError("the test's own")
        """,
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*RuntimeError: the test's own*"])
    result.stdout.no_fnmatch_line("*AssertionError*")


def test_unused(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that does not use the plugin imports nothing of it, not even SQLAlchemy."""
    (project.path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert 'sqlalchemy' not in sys.modules\n"
    )
    # other plugins, of libraries that are there for tests of ours, import it
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = project.runpytest_subprocess("-W", "error", "-p", "qapla_db.testing.plugin")
    result.assert_outcomes(passed=1)


def test_without_frameworks(project: pytest.Pytester) -> None:
    """The fixtures work where neither Pyramid nor Celery is installed."""
    (project.path / "conftest.py").write_text(
        "import sys\nfor name in ('pyramid', 'celery', 'webob', 'kombu'):\n"
        "    sys.modules[name] = None\n"
    )
    result = run(
        project,
        """
        class TestOne(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_it(self, dbsession):
                assert [] == dbsession.query(Ship).all()
        """,
    )
    result.assert_outcomes(passed=1)
