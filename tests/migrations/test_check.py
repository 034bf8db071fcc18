"""What is found before a change of models or migrations is merged."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import MigrationError, Refused
from qapla_db.migrations import migrate
from qapla_db.migrations.check import Problem, check
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
DROP = "op.drop_table({!r})"
MODELS = """
Model = sa.MetaData()
for name in ("airport", "runway"):
    sa.Table(name, Model, sa.Column("id", sa.Integer, primary_key=True))
"""


def sound(project: Project) -> Database:
    """Make a project in which all is well; its database, at head."""
    project.write_env("main", MODELS)
    project.revision("a1", CREATE.format("airport"), DROP.format("airport"))
    project.revision("a2", CREATE.format("runway"), DROP.format("runway"), after="a1")
    database = project.database()
    database.create()
    migrate(database)
    return database


@pytest.fixture
def light(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project with one database on SQLite."""
    return make_project({"main": fresh_url("sqlite")})


def rules(problems: list[Problem]) -> list[str]:
    return [one.rule for one in problems]


def test_all_is_well(project: Project, each_url: sa.URL) -> None:
    """Where all is well there are no problems, and the database is what it was."""
    database = sound(project)
    before = tables(each_url)
    assert [] == check(database)
    assert before == tables(each_url)
    assert [] == check(database, live=False)


def test_two_heads(light: Project) -> None:
    """Two heads are named, with the command that merges them."""
    database = sound(light)
    light.revision("b2", CREATE.format("gate"), DROP.format("gate"), after="a1")
    found = check(database, live=False)
    assert ["heads"] == rules(found)
    assert "main: there are 2 heads: a2, b2. Merge them: qapla-db merge main" == str(found[0])


def test_head_that_depends_on_another(light: Project) -> None:
    """Where one head depends on another it is still told what the database lacks."""
    database = sound(light)
    light.revision("b2", CREATE.format("gate"), DROP.format("gate"))
    path = light.directory("main") / "versions" / "b2_.py"
    text = path.read_text().replace("branch_labels = depends_on", "depends_on")
    path.write_text(text.replace("depends_on = None", "depends_on = 'a2'"))
    assert ["heads", "behind"] == rules(check(database))
    migrate(database, "heads")
    assert ["heads"] == rules(check(database))


def test_behind(light: Project) -> None:
    """A database that is behind is a problem, unless the database is left out."""
    database = sound(light)
    light.revision("a3", "op.execute('SELECT 1')", "op.execute('SELECT 1')", after="a2")
    found = check(database)
    assert ["behind"] == rules(found)
    assert "is at a2 and lacks a3" in found[0].message
    assert "Run: qapla-db upgrade main" == found[0].remedy
    assert [] == check(database, live=False)


def test_models_differ(project: Project) -> None:
    """Models that no revision makes are found on an empty database, whatever the real one has."""
    database = sound(project)
    rows(database.settings.url, "CREATE TABLE gate (id integer NOT NULL PRIMARY KEY)")
    project.write_env("main", MODELS.replace('"runway")', '"runway", "gate")'))
    found = check(database)
    assert ["models"] == rules(found)
    assert "add table gate" in found[0].message
    project.write_env("main", MODELS.replace('"airport", "runway"', '"runway",'))
    assert [] == check(database), "a table that no model has is left alone"


def test_edited(light: Project) -> None:
    """A file that was edited after it was applied is named, with when and by whom."""
    database = sound(light)
    light.revision("a1", CREATE.format("airport"), DROP.format("airports"))
    found = check(database)
    assert ["edited"] == rules(found)
    path = light.directory("main") / "versions" / "a1_.py"
    assert ("a1", str(path)) == (found[0].revision, found[0].path)
    assert "the file of the revision a1 was edited after it was applied on 20" in found[0].message
    assert " by " in found[0].message
    assert found[0].remedy.startswith(f"Undo the change in {path}")


def test_comment(light: Project) -> None:
    """A comment that allows something, put into a file that was applied, is no edit of it."""
    database = sound(light)
    path = light.directory("main") / "versions" / "a1_.py"
    path.write_text(f"# qapla: allow drop-table, nobody reads it\n{path.read_text()}")
    assert [] == check(database)


def test_deleted(light: Project) -> None:
    """A revision that was applied and has no file any more is named."""
    database = sound(light)
    (light.directory("main") / "versions" / "a2_.py").unlink()
    light.write_env("main", MODELS.replace(', "runway"', ","))
    found = check(database)
    assert ["deleted"] == rules(found)
    assert "a2" == found[0].revision


def test_unknown(light: Project) -> None:
    """A database at a revision of which nothing is known cannot be upgraded."""
    database = sound(light)
    rows(database.settings.url, "UPDATE alembic_version SET version_num = 'lost'")
    assert ["unknown"] == rules(check(database))


def test_another_environment(light: Project) -> None:
    """A copy of another environment is told apart."""
    sound(light)
    app = light.application().run_command({"db:main:environment": "staging"})
    found = check(app.dbs["main"])
    assert ["record"] == rules(found)
    assert "recorded as main@development" in found[0].message


def test_no_database(light: Project) -> None:
    """Without the database everything else is checked, and it is not created."""
    light.write_env("main", MODELS.replace(', "runway"', ","))
    light.revision("a1", CREATE.format("airport"))
    database = light.database()
    assert ["downgrade", "unreachable"] == rules(check(database))
    assert ["downgrade"] == rules(check(database, live=False))
    assert not database.exists()


@pytest.mark.parametrize(
    "up, down, is_problem",
    [
        ("op.execute('SELECT 1')", "pass", True),
        ("op.execute('SELECT 1')", "'''Nothing to undo.'''", True),
        ("op.execute('SELECT 1')", "'''Nothing.'''\nreturn", True),
        ("op.execute('SELECT 1')", "...", True),
        ("op.execute('SELECT 1')", "op.execute('SELECT 2')", False),
        ("op.execute('SELECT 1')", "raise NotImplementedError('the names are lost')", False),
        ("pass", "pass", False),
        ("'''A merge.'''", "pass", False),
    ],
)
def test_downgrades(light: Project, up: str, down: str, is_problem: bool) -> None:
    """A revision that does something has a downgrade that does, or says why it cannot."""
    light.revision("a1", up, down)
    found = check(light.database(), live=False)
    assert (["downgrade"] if is_problem else []) == rules(found)
    if is_problem:
        assert "a1" == found[0].revision
        assert "does nothing" in found[0].message


def test_no_downgrade_at_all(light: Project) -> None:
    """A revision without the function is one without a downgrade; one that is imported counts."""
    path = light.directory("main") / "versions" / "a1_.py"
    light.revision("a1", "op.execute('SELECT 1')")
    text = path.read_text().partition("def downgrade")[0]
    path.write_text(text)
    assert ["downgrade"] == rules(check(light.database(), live=False))
    path.write_text(f"{text}\nfrom builtins import print as downgrade\n")
    assert [] == check(light.database(), live=False)


def test_revisions_that_fail(light: Project) -> None:
    """Revisions that cannot be run on an empty database are an error that says which."""
    light.revision("a1", "op.execute('nonsense')", "op.execute('SELECT 1')")
    with pytest.raises(MigrationError, match=r"base -> a1.*nonsense"):
        check(light.database(), live=False)


def test_beside_production(light: Project) -> None:
    """Beside production no scratch database is made."""
    sound(light)
    app = light.application().run_command({"db:main:environment": "production"})
    with pytest.raises(Refused, match="production"):
        check(app.dbs["main"], live=False)


def test_as_json(light: Project) -> None:
    """A problem can be printed as JSON."""
    light.revision("a1", "op.execute('SELECT 1')")
    (found,) = check(light.database(), live=False)
    assert ["main", "downgrade", "a1"] == [
        json.loads(json.dumps(found.as_json()))[key] for key in ("database", "rule", "revision")
    ]
