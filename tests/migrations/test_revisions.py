"""Revisions made from the models, without a database of one's own."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.errors import MigrationError, Refused
from qapla_db.migrations import migrate
from qapla_db.migrations.revisions import make_revision
from qapla_db.migrations.scaffold import Application, scaffold
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Expression, Project, rows, tables

ONE = "Model = sa.MetaData()\nsa.Table('t', Model, sa.Column('id', sa.Integer, primary_key=True))"
TWO = ONE + "\nsa.Table('u', Model, sa.Column('c', sa.Text))"


def test_from_nothing(project: Project, each_url: sa.URL) -> None:
    """Revisions are made one after the other with no database there, and each is applied."""
    database = project.database()
    database.drop(confirm="main")
    project.write_env("main", ONE)
    first = make_revision(database, "add t")
    project.write_env("main", TWO)
    second = make_revision(database, "add u")
    assert not database.exists()
    assert isinstance(first, Path)
    assert isinstance(second, Path)
    assert "create_table('t'" in first.read_text()
    assert "create_table('u'" in second.read_text()
    assert "create_table('t'" not in second.read_text()
    assert sorted(project.versions()) == sorted([first.name, second.name])
    assert first.name.endswith("_add_t.py")
    database.create()
    migrate(database)
    assert ["alembic_version", "t", "u"] == [
        name for name in tables(each_url) if not name.startswith("qapla_db")
    ]


def test_nothing_to_do(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing differs no file is written, and that is reported; nothing is printed."""
    project.write_env("main", ONE)
    database, lines = project.database(), list[str]()
    make_revision(database, "add t")
    assert make_revision(database, "again", report=lines.append) is None
    assert "main: the models and the database agree, no revision is written" == lines[-1]
    assert 1 == len(project.versions())
    assert ("", "") == tuple(capsys.readouterr())


def test_changes_by_hand(project: Project, each_url: sa.URL) -> None:
    """What somebody changed by hand in the real database gets into no revision."""
    project.write_env("main", ONE)
    database = project.database()
    make_revision(database, "add t")
    migrate(database)
    rows(each_url, "ALTER TABLE t ADD COLUMN by_hand integer")
    assert make_revision(database, "nothing") is None


PERCENTS = """
Model = sa.MetaData()
sa.Table(
    't', Model,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('j', sa.String(20), server_default=sa.text("'7%'")),
    sa.Column('k', sa.String(20), server_default='8%'),
    sa.Column('l', sa.String(20), server_default=sa.text("'9%%'")),
    sa.CheckConstraint("j <> '50%'", name='not_half'),
)
"""
LATER = """
Model.tables['t'].append_column(sa.Column('m', sa.String(20), server_default=sa.text("'6%'")))
"""


def test_percent_signs(project: Project, each_url: sa.URL) -> None:
    """Percent signs of constraints and defaults are stored as the models have them."""
    project.write_env("main", PERCENTS)
    database = project.database()
    make_revision(database, "add t")
    project.write_env("main", PERCENTS + LATER)
    make_revision(database, "add m")
    migrate(database)
    rows(each_url, "INSERT INTO t (id) VALUES (1)")
    assert [("7%", "8%", "9%%", "6%")] == rows(each_url, "SELECT j, k, l, m FROM t")
    rows(each_url, "INSERT INTO t (id, j) VALUES (2, '50%%')")
    with pytest.raises(sa.exc.DBAPIError):
        rows(each_url, "INSERT INTO t (id, j) VALUES (3, '50%')")
    assert make_revision(database, "nothing") is None


MESSAGES = [
    '"""',
    'say """"no',
    "C:\\new\\x",
    "ends with \\",
    '"',
    'the "last"',
    "two\nlines",
    "${x}",
    "%d",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_any_message(offline: Project, message: str) -> None:
    """Whatever the message is the file compiles, and says it."""
    template = offline.directory("main") / "script.py.mako"
    template.unlink()
    database = offline.database()
    scaffold([database], Application((), "app", None), offline.root)
    assert template.exists()
    path = make_revision(database, message, empty=True)
    assert path is not None
    with warnings.catch_warnings(action="error"):
        doc = ast.get_docstring(ast.parse(path.read_text()), clean=False)
    assert doc is not None
    assert doc.startswith(f"{message}\n\nRevision: ")


@pytest.mark.parametrize("empty", [True, False])
def test_a_file_that_does_not_compile(
    make_project: MakeProject, fresh_url: FreshURL, empty: bool
) -> None:
    """A template that makes no Python of the message is named, and no file stays behind."""
    project = make_project({"main": fresh_url("sqlite")})
    project.write_env("main", ONE)
    for message in ('"""', "nul\0"):
        with pytest.raises(MigrationError, match=r"script\.py\.mako makes of it does not compile"):
            make_revision(project.database(), message, empty=empty)
        assert [] == project.versions()


def test_empty(offline: Project) -> None:
    """An empty revision is written without a server."""
    offline.write_env("main", ONE)
    path = make_revision(offline.database(), "move data", empty=True)
    assert path is not None
    assert path.name.endswith("_move_data.py")
    assert "def upgrade():\n    pass" in path.read_text()


@pytest.mark.parametrize("empty", [True, False])
def test_two_heads(offline: Project, empty: bool) -> None:
    """Two heads are named, with what merges them, before any server is asked."""
    offline.revision("a1", "pass")
    offline.revision("b1", "pass")
    with pytest.raises(MigrationError, match=r"2 heads, a1, b1 .*qapla-db merge main"):
        make_revision(offline.database(), "more", empty=empty)
    assert 2 == len(offline.versions())


@pytest.mark.parametrize("empty", [True, False])
def test_no_template(offline: Project, empty: bool) -> None:
    """A directory without the template of revisions is refused before any server is asked."""
    (offline.directory("main") / "script.py.mako").unlink()
    with pytest.raises(MigrationError, match=r"has no script\.py\.mako"):
        make_revision(offline.database(), "more", empty=empty)


def test_failing_revision(project: Project) -> None:
    """A revision that fails in the shadow is named, and nothing is written."""
    project.revision("a1", "op.execute('SELECT nonsense FROM nowhere')")
    with pytest.raises(MigrationError, match="base -> a1"):
        make_revision(project.database(), "more")
    assert ["a1_.py"] == project.versions()


def test_production(offline: Project) -> None:
    """Beside production no revision is made."""
    offline.set(environment="production")
    with pytest.raises(Refused, match="'production'"):
        make_revision(offline.database(), "more")


def test_strangers(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A table that a revision made without a model is left alone, and reported."""
    project = make_project({"main": fresh_url("sqlite")})
    project.revision("a1", "op.execute('CREATE TABLE words (a text, b text, c text, d text)')")
    project.write_env("main", ONE)
    lines: list[str] = []
    path = make_revision(project.database(), "add t", report=lines.append)
    assert path is not None
    assert "words" not in path.read_text()
    assert any("left alone" in line and "words" in line for line in lines)


def test_hooks_of_the_user(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A hook of the user's env.py sees the operations, renames among them."""
    project = make_project({"main": fresh_url("sqlite")})
    table = "Model = sa.MetaData()\nsa.Table('t', Model, sa.Column({!r}, sa.Integer))\n"
    project.write_env("main", table.format("old"))
    make_revision(project.database(), "add t")
    hook = """
def shout(context, revision, directives):
    names = [type(one).__name__ for one in directives[0].upgrade_ops.ops]
    directives[0].message = " ".join(names)
"""
    project.write_env(
        "main", table.format("new") + hook, process_revision_directives=Expression("shout")
    )
    path = make_revision(project.database(), "rename", renames=["t.old:new"])
    assert path is not None
    assert '"""RenameColumn"""' in path.read_text()
