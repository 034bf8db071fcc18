from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.backends import get_backend
from tests.conftest import FreshURL
from tests.migrations.project import Project

MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeProject]:
    """Make projects that this process can import too; forgotten at the end."""
    known = set(sys.modules)
    projects: list[Project] = []
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(
        urls: Mapping[str, sa.URL | str],
        tests: Mapping[str, sa.URL | str] | None = None,
        directory: str = "project",
    ) -> Project:
        root = tmp_path / directory
        root.mkdir()
        monkeypatch.syspath_prepend(str(root))
        projects.append(Project(root, urls, tests))
        return projects[-1]

    yield make
    for one in projects:
        one.close()
    for name in set(sys.modules) - known:
        if name.startswith("project_"):
            del sys.modules[name]


@pytest.fixture
def project(make_project: MakeProject, each_url: sa.URL) -> Project:
    """A project with the database ``main``, on each kind of engine in turn."""
    return make_project({"main": each_url})


@pytest.fixture
def offline(make_project: MakeProject) -> Project:
    """A project whose server does not run."""
    return make_project({"main": "postgresql://nobody:secret@127.0.0.1:1/nowhere"})


@pytest.fixture(params=["postgresql", "mariadb"])
def server_database_url(request: pytest.FixtureRequest, fresh_url: FreshURL) -> sa.URL:
    """An empty database on each kind of server in turn."""
    url = fresh_url(request.param)
    backend = get_backend(url)
    assert backend is not None
    backend.create(backend.complete(url), None)
    return url
