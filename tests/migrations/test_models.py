"""The models of a database, found through its env.py."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qapla_db.errors import MigrationError
from qapla_db.migrations.models import models_of
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import SEVERAL_BASES, Project


def test_models(offline: Project) -> None:
    """The metadata of every base that env.py hands over is found, and no server is needed."""
    offline.write_env("main", SEVERAL_BASES)
    found = models_of(offline.database())
    assert [["one"], ["two"]] == [sorted(one.tables) for one in found]
    assert all(isinstance(one, sa.MetaData) for one in found)


def test_nothing_is_created(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """A file of SQLite that is not there is not made by the question."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    models_of(project.database())
    assert not project.database().exists()


def test_env_without_run(offline: Project) -> None:
    """An env.py that makes an AlembicEnv and does not run it is named."""
    path = offline.directory("main") / "env.py"
    path.write_text(path.read_text().replace(".run()", ""))
    with pytest.raises(MigrationError, match=r"migrations/main/env\.py does not end with"):
        models_of(offline.database())


def test_env_of_another_make(offline: Project) -> None:
    """An env.py that does without AlembicEnv is named."""
    path = offline.directory("main") / "env.py"
    path.write_text("from alembic import context\ncontext.configure(url='sqlite://')\n")
    with pytest.raises(MigrationError, match="AlembicEnv"):
        models_of(offline.database())


def test_no_env(offline: Project) -> None:
    """A directory without env.py is named, with what to write there."""
    (offline.directory("main") / "env.py").unlink()
    with pytest.raises(MigrationError, match=r"has no env\.py; write it there"):
        models_of(offline.database())
