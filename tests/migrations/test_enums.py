"""Enums of PostgreSQL, as alembic-postgresql-enum compares them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa

from qapla_db.migrations import downgrade, migrate
from qapla_db.migrations.revisions import make_revision
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, Project, rows

MODELS = """
Model = sa.MetaData()
sa.Table("ship", Model, sa.Column("id", sa.Integer, primary_key=True){})
"""
STATE = ', sa.Column("state", sa.Enum({}, name="state"), nullable=False, server_default="new")'


@pytest.fixture
def ships(make_project: MakeProject, postgresql_database_url: sa.URL) -> Project:
    """A project with a table, migrated."""
    project = make_project({"main": postgresql_database_url})
    project.write_env("main", MODELS.format(""))
    make_revision(project.database(), "ships")
    migrate(project.database())
    return project


def change(project: Project, columns: str) -> str:
    """Change the models, make a revision of it and apply it; return its text."""
    project.write_env("main", MODELS.format(columns))
    path = make_revision(project.database(), "change")
    assert path is not None
    migrate(project.database())
    assert make_revision(project.database(), "again") is None
    return path.read_text()


def labels(url: sa.URL) -> list[str]:
    return [name for (name,) in rows(url, "SELECT enumlabel FROM pg_enum ORDER BY enumsortorder")]


def test_values(ships: Project, postgresql_database_url: sa.URL) -> None:
    """A value that is added is added to the type, with rows there, and taken away again."""
    url = postgresql_database_url
    pytest.importorskip("alembic_postgresql_enum")
    change(ships, STATE.format("'new', 'sold'"))
    rows(url, "INSERT INTO ship (id, state) VALUES (1, 'sold')")
    change(ships, STATE.format("'new', 'sold', 'lost'"))
    assert ["new", "sold", "lost"] == labels(url)
    rows(url, "INSERT INTO ship (id) VALUES (2)")
    assert [(1, "sold"), (2, "new")] == rows(url, "SELECT id, state FROM ship ORDER BY id")
    downgrade(ships.database(), "-1")
    assert ["new", "sold"] == labels(url)
    assert [(1, "sold"), (2, "new")] == rows(url, "SELECT id, state FROM ship ORDER BY id")


def test_value_between(ships: Project, postgresql_database_url: sa.URL) -> None:
    """Values that are added before another one are before it, whatever is written in them."""
    pytest.importorskip("alembic_postgresql_enum")
    change(ships, STATE.format("'new', 'sold'"))
    change(ships, STATE.format("'new', 'it\\'s :so', 'it is', 'sold', '5%'"))
    assert ["new", "it's :so", "it is", "sold", "5%"] == labels(postgresql_database_url)
    downgrade(ships.database(), "-1")
    assert ["new", "sold"] == labels(postgresql_database_url)


OTHER = ', sa.Column("the State", {})'


@pytest.mark.parametrize("other", ["sa.String(8)", 'sa.Enum("a", "b", "c", name="Other state")'])
def test_type_of_a_column(ships: Project, postgresql_database_url: sa.URL, other: str) -> None:
    """A column gets an enum for text or another enum, and back, with what is in it."""
    pytest.importorskip("alembic_postgresql_enum")
    enum = 'sa.Enum("a", "b", name="state")'
    stored = 'SELECT "the State"::text FROM ship'
    change(ships, OTHER.format(enum))
    rows(postgresql_database_url, "INSERT INTO ship VALUES (1, 'b')")
    change(ships, OTHER.format(other))
    change(ships, OTHER.format(enum))
    for _ in range(2):
        downgrade(ships.database(), "-1")
        assert [("b",)] == rows(postgresql_database_url, stored)


def test_added_column(
    ships: Project, postgresql_database_url: sa.URL, capsys: pytest.CaptureFixture[str]
) -> None:
    """The type of a column that is added is created, and dropped on the way back, offline too."""
    pytest.importorskip("alembic_postgresql_enum")
    text = change(ships, STATE.format("'new', 'so\\'ld: 5%'"))
    assert "op.execute(" in text
    assert ["new", "so'ld: 5%"] == labels(postgresql_database_url)
    ships.run("upgrade", "head", "--sql")
    assert "CREATE TYPE state AS ENUM ('new', 'so''ld: 5%');" in capsys.readouterr().out
    downgrade(ships.database(), "-1")
    assert [] == labels(postgresql_database_url)
    migrate(ships.database())
    assert ["new", "so'ld: 5%"] == labels(postgresql_database_url)


def test_types_of_others(ships: Project, postgresql_database_url: sa.URL) -> None:
    """A type that no model uses is left alone."""
    rows(postgresql_database_url, "CREATE TYPE theirs AS ENUM ('a')")
    assert "No new upgrade operations detected.\n" == ships.run("check")


def test_without_it(ships: Project) -> None:
    """Without the package revisions are made and applied."""
    ships.write_env("main", MODELS.format(', sa.Column("name", sa.Text)'))
    code = (
        "import sys; sys.modules['alembic_postgresql_enum'] = None\n"
        f"from {ships.module} import app\n"
        "from qapla_db.migrations import migrate\n"
        "from qapla_db.migrations.revisions import make_revision\n"
        "database = app.run_command().dbs['main']\n"
        "print(make_revision(database, 'name').name)\n"
        "migrate(database)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ships.root,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert "" == done.stderr
    assert done.stdout.strip() in ships.versions()


def test_other_kinds(make_project: MakeProject, each_url: sa.URL, ships: Project) -> None:
    """A process that has migrated PostgreSQL says nothing about the others' enums."""
    project = make_project({"main": each_url}, directory="other")
    code = (
        "import logging; logging.basicConfig()\n"
        "from importlib import import_module\n"
        "from qapla_db.migrations.revisions import make_revision\n"
        f"for root, name in {[(str(one.root), one.module) for one in (ships, project)]!r}:\n"
        "    import sys; sys.path.insert(0, root)\n"
        "    make_revision(import_module(name).app.run_command().dbs['main'], 'more')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=WAIT
    )
    assert (0, "") == (done.returncode, done.stderr)
