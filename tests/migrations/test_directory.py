"""What is missing in a migrations directory is said in one line, never passed over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import context
from alembic.util import CommandError

from qapla_db.env import AlembicEnv
from qapla_db.errors import MigrationError, MigrationIncomplete
from qapla_db.migrations import migrate
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, tables
from tests.support import SmallApplication

CREATE = "op.create_table('airport', sa.Column('id', sa.Integer, primary_key=True))"
NOTHING = r"nothing was done to the database 'main': .*env\.py does not end with .*\.run\(\)"


@pytest.fixture
def url(fresh_url: FreshURL) -> sa.URL:
    return fresh_url("sqlite")


@pytest.fixture
def one(make_project: MakeProject, url: sa.URL) -> Project:
    """A project with one revision."""
    project = make_project({"main": url})
    project.revision("a1", CREATE)
    return project


def replace_run(project: Project, *lines: str) -> str:
    """Put other lines in the place of run() in env.py; return what it was."""
    env = project.directory("main") / "env.py"
    whole = env.read_text()
    assert ").run()" in whole
    env.write_text(whole.replace(").run()", ")") + "\n".join(("", *lines, "")))
    return whole


# --- run() is missing


def test_run_is_forgotten(one: Project, url: sa.URL) -> None:
    """The command alembic fails, in one line, with an env.py that forgets run()."""
    replace_run(one)
    result = one.alembic("upgrade", "head")
    assert 255 == result.returncode
    assert result.stdout.startswith("FAILED: nothing was done to the database 'main': ")
    assert result.stdout.endswith("env.py does not end with AlembicEnv(app, Model, 'main').run()\n")
    assert 1 == result.stdout.count("\n")
    assert "" == result.stderr
    assert [] == tables(url)


@pytest.mark.parametrize(
    "arguments",
    ["current", "check", "stamp head", "upgrade head --sql", "revision --autogenerate"],
)
def test_run_is_forgotten_for_each_command(one: Project, arguments: str) -> None:
    """Each command that runs env.py notices; the next one in this process works."""
    whole = replace_run(one)
    with pytest.raises(MigrationIncomplete, match=NOTHING) as caught:
        one.run(*arguments.split())
    assert isinstance(caught.value, CommandError)
    assert not hasattr(context, "config"), "Alembic has not put its context away"
    assert ["a1_.py"] == one.versions()
    (one.directory("main") / "env.py").write_text(whole)
    assert "main: base -> a1" in one.run("upgrade", "head")


def test_run_is_forgotten_in_a_program(one: Project) -> None:
    """migrate() says the same, also to who calls it while handling an error."""
    replace_run(one)
    database = one.database()
    try:
        raise LookupError
    except LookupError:
        with pytest.raises(MigrationIncomplete, match=NOTHING):
            migrate(database)
        with pytest.raises(MigrationIncomplete, match=NOTHING):
            one.run("upgrade", "head")


def test_an_error_in_env_is_shown(one: Project) -> None:
    """An env.py that fails before run() shows its own error."""
    replace_run(one, "raise LookupError('of env.py')")
    with pytest.raises(LookupError, match=r"of env\.py"):
        one.run("upgrade", "head")


def test_env_that_works_in_its_own_way(one: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """An env.py that makes several and runs one, or configures Alembic itself, is no error."""
    whole = replace_run(one, "AlembicEnv(app, Model, 'main').run()")
    assert "main: base -> a1" in one.run("upgrade", "head")
    (one.directory("main") / "env.py").write_text(whole)
    own = (
        "from alembic import context",
        "context.configure(dialect_name='sqlite')",
        "context.run_migrations()",
    )
    replace_run(one, *own)
    one.run("upgrade", "head", "--sql")
    assert "CREATE TABLE airport" in capsys.readouterr().out


def test_made_outside_of_a_command() -> None:
    """Without an Alembic command under way an AlembicEnv can be made and left alone."""
    assert "main" == AlembicEnv(SmallApplication(), sa.MetaData(), "main").name


# --- script.py.mako is missing


def test_template_is_missing(one: Project) -> None:
    """A revision without its template is refused in one line; what it says to copy mends it."""
    template = one.directory("main") / "script.py.mako"
    template.unlink()
    assert "main: base -> a1" in one.run("upgrade", "head")  # which needs no template
    assert "No new upgrade operations" in one.run("check")
    one.write_env(
        "main", "Model = sa.MetaData()\nsa.Table('gate', Model, sa.Column('id', sa.Integer))"
    )
    result = one.alembic("revision", "--autogenerate", "-m", "gates")
    assert 255 == result.returncode
    assert result.stdout.startswith("FAILED: migrations/main has no script.py.mako, the template")
    assert 1 == result.stdout.count("\n")
    assert "" == result.stderr
    assert ["a1_.py"] == one.versions()
    source = Path(result.stdout.rstrip().partition("copy Alembic's from ")[2])
    shutil.copy(source, template)
    one.run("revision", "--autogenerate", "-m", "gates")
    assert 2 == len(one.versions())


def test_template_is_missing_where_env_always_runs(one: Project) -> None:
    """With revision_environment a revision by hand is refused in the same way."""
    (one.directory("main") / "script.py.mako").unlink()
    one.write_ini(revision_environment="true")
    with pytest.raises(MigrationError, match=r"has no script\.py\.mako, the template"):
        one.run("revision", "-m", "by hand")
