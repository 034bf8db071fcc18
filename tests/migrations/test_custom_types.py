"""Types of the user's in revisions: written with what they need."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.errors import MigrationError
from qapla_db.migrations import downgrade, migrate
from qapla_db.migrations.revisions import make_revision
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Expression, Project, tables

TYPES = """
import enum
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

class Mood(enum.Enum):
    good = 1
    bad = 2

class Money(sa.TypeDecorator):
    impl = sa.Numeric(10, 2)
    cache_ok = True

class Moods(sa.TypeDecorator):
    impl = sa.Enum(Mood, name="mood")
    cache_ok = True

class Inline(sa.TypeDecorator):
    impl = sa.Enum(Mood, name="inline", native_enum=False)
    cache_ok = True

class Feeling(sa.Enum):
    pass

class Document(sa.TypeDecorator):
    impl = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    cache_ok = True

class Outer:
    class Text(sa.types.UserDefinedType):
        cache_ok = True
        def get_col_spec(self, **options):
            return "INTEGER"

class Listed(sa.types.UserDefinedType):
    cache_ok = True
    def __init__(self, kind):
        self.kind = sa.types.to_instance(kind)
    def get_col_spec(self, **options):
        return "INTEGER"

class Chosen(sa.TypeDecorator):
    impl = sa.String(20)
    cache_ok = True
    def __init__(self, choices):
        super().__init__()
        self.choices = choices
"""

MODELS = """
import {types} as t
from sqlalchemy.dialects import mysql, postgresql
Model = sa.MetaData()
sa.Table("t", Model, sa.Column("id", sa.Integer, primary_key=True), {columns})
"""

ALL = """
sa.Column("money", t.Money(), nullable=False),
sa.Column("mood", t.Moods()),
sa.Column("inline", t.Inline()),
sa.Column("feeling", t.Feeling("joy", "fear", name="feeling")),
sa.Column("plain", sa.Enum("a", "b", name="plain")),
sa.Column("text", t.Outer.Text()),
sa.Column("list", t.Listed(sa.String(3))),
sa.Column("other", t.Listed(t.Money())),
sa.Column("document", t.Document()),
sa.Column("json", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")),
sa.Column("either", t.Money().with_variant(sa.Float(), "sqlite")),
sa.Column("dialects", sa.Text().with_variant(postgresql.CITEXT(), "oracle")),
"""


def write_models(project: Project, columns: str, **options: object) -> str:
    """Write models with columns, and the module of their types; its name."""
    types = f"{project.module}_types"
    (project.root / f"{types}.py").write_text(TYPES)
    project.write_env("main", MODELS.format(types=types, columns=columns), **options)
    return types


def test_they_are_imported(project: Project, each_url: sa.URL) -> None:
    """A revision with types of the user's is applied, undone, and nothing differs afterwards."""
    write_models(project, ALL)
    database = project.database()
    assert make_revision(database, "types") is not None
    migrate(database)
    assert "t" in tables(each_url)
    assert make_revision(database, "again") is None
    downgrade(database, "base")
    assert "t" not in tables(each_url)


def test_alembic_imports_them_too(project: Project, each_url: sa.URL) -> None:
    """What the command alembic writes is applied in a process of its own, and written as SQL."""
    types = write_models(project, ALL)
    assert 0 == project.alembic("revision", "--autogenerate", "-m", "types").returncode
    (name,) = project.versions()
    text = (project.directory("main") / "versions" / name).read_text()
    assert 1 == text.count(f"import {types}\n")
    done = project.alembic("upgrade", "head")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "t" in tables(each_url)
    assert "CREATE TABLE t" in project.alembic("upgrade", "head", "--sql").stdout


@pytest.fixture
def small(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project on SQLite."""
    return make_project({"main": fresh_url("sqlite")})


def written(project: Project) -> str:
    path = make_revision(project.database(), "types")
    assert isinstance(path, Path)
    return path.read_text()


FOREIGN = {
    "postgresql.JSONB()": "postgresql.JSONB(astext_type=sa.Text())",
    "postgresql.ARRAY(t.Money())": "postgresql.ARRAY({types}.Money(precision=10, scale=2))",
    "postgresql.ARRAY(postgresql.ENUM('a', name='e'))": (
        "postgresql.ARRAY(postgresql.ENUM('a', name='e'))"
    ),
    "mysql.SET('a', 'b')": "mysql.SET('a', 'b')",
}


@pytest.mark.parametrize("type_", FOREIGN)
def test_of_other_engines(small: Project, type_: str) -> None:
    """What a type of another kind of database is made of is written with its module."""
    types = write_models(small, f"sa.Column('a', sa.Text().with_variant({type_}, 'oracle'))")
    text = written(small)
    assert f".with_variant({FOREIGN[type_].format(types=types)}, 'oracle')" in text
    migrate(small.database())


def test_a_hook_of_the_user(small: Project) -> None:
    """What the user's own render_item writes is written; the rest is as it would be."""
    columns = "sa.Column('a', t.Money()), sa.Column('b', t.Moods())"
    hook = Expression("lambda kind, one, _: 'sa.Integer()' if isinstance(one, t.Money) else False")
    types = write_models(small, columns, render_item=hook)
    text = written(small)
    assert "'a', sa.Integer()" in text
    assert f"{types}.Moods(" in text
    assert f"{types}.Money(" not in text


def test_a_prefix_of_the_user(small: Project) -> None:
    """With a user_module_prefix the names and imports are the user's business."""
    template = small.directory("main") / "script.py.mako"
    types = f"{small.module}_types"
    template.write_text(
        template.read_text().replace("from alembic", f"import {types} as my\nfrom alembic")
    )
    write_models(small, "sa.Column('a', t.Money())", user_module_prefix="my.")
    text = written(small)
    assert "my.Money(" in text
    assert 1 == text.count(types)


UNWRITABLE = {
    "t.Chosen(['a', 'b'])": "missing a required argument: 'choices'",
    "type('Here', (t.Money,), {'cache_ok': True})()": "cannot import it from",
    "type('Odd', (t.Money,), {'cache_ok': True, '__repr__': lambda self: '<odd>'})()": "<odd>",
}


@pytest.mark.parametrize("type_", UNWRITABLE)
def test_what_cannot_be_written(small: Project, type_: str) -> None:
    """A type that a revision could not make is refused by name, and no file is written."""
    write_models(small, f"sa.Column('a', {type_})")
    with pytest.raises(MigrationError, match=UNWRITABLE[type_]) as caught:
        make_revision(small.database(), "types")
    assert "render_item=" in str(caught.value)
    done = small.alembic("revision", "--autogenerate", "-m", "types")
    assert UNWRITABLE[type_] in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert [] == small.versions()


def test_a_template_without_imports(small: Project) -> None:
    """Names that the file does not import are an error before it is there."""
    template = small.directory("main") / "script.py.mako"
    template.write_text(template.read_text().replace('${imports if imports else ""}\n', ""))
    types = write_models(small, "sa.Column('a', t.Money())")
    with pytest.raises(
        MigrationError, match=rf"has no import of {types}\. .*\$\{{imports"
    ) as caught:
        make_revision(small.database(), "types")
    assert str(template) in str(caught.value)
    assert [] == small.versions()
    write_models(small, "sa.Column('a', sa.Text)")
    assert make_revision(small.database(), "text") is not None
