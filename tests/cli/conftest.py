from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from qapla_db.cli.main import app
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject, make_project
from tests.migrations.project import Project

__all__ = ["Cli", "Files", "make_project"]


@dataclass(frozen=True)
class Cli:
    """Runs commands in this process, in a directory."""

    root: Path

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """Run a command and see that it ends with an exit code, never with a traceback."""
        with contextlib.chdir(self.root):
            result = CliRunner().invoke(app, list(arguments), prog_name="qapla-db")
        assert code == result.exit_code, f"{result.output}\n{result.exception!r}"
        assert "Traceback" not in result.output
        assert code in (0, 1) or result.stderr
        return result

    def json(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a command and return what it prints as JSON, and its exit code if several may be."""
        with contextlib.chdir(self.root):
            result = CliRunner().invoke(app, [*arguments, "--json"], prog_name="qapla-db")
        assert result.exit_code in codes, f"{result.output}\n{result.exception!r}"
        found = json.loads(result.stdout)
        return (found, result.exit_code) if len(codes) > 1 else found

    def error(self, *arguments: str, code: int = 3) -> str:
        """Run a command that must fail, and return the only line that it prints for it."""
        lines: list[str] = self(*arguments, code=code).stderr.splitlines()
        assert 1 == len(lines), lines
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@dataclass(frozen=True)
class Files:
    """A directory in which a test writes a project of its own; it is on the path of Python."""

    root: Path

    def write(self, files: Mapping[str, str]) -> None:
        """Write files: path -> text."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))

    def forget(self) -> None:
        """Forget what this process has imported from it, so that a command reads it again."""
        for name, module in list(sys.modules.items()):
            places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
            if any(str(place).startswith(f"{self.root}{os.sep}") for place in places):
                del sys.modules[name]
        importlib.invalidate_caches()

    @property
    def cli(self) -> Cli:
        return Cli(self.root)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what the shell names."""
    monkeypatch.delenv("QAPLA_APP", raising=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """An empty directory; the modules that commands import from it are forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = tmp_path / "project"
    root.mkdir()
    made = Files(root)
    yield made
    made.forget()


CliOf = Callable[[Project], Cli]


@pytest.fixture
def cli_of(monkeypatch: pytest.MonkeyPatch) -> CliOf:
    """Make the command line of a project, which the environment names."""

    def make(project: Project) -> Cli:
        monkeypatch.setenv("QAPLA_APP", f"{project.module}:app")
        return Cli(project.root)

    return make


@pytest.fixture
def project(make_project: MakeProject, each_url: sa.URL) -> Project:
    """A project with the database ``main``, on each kind of engine in turn."""
    return make_project({"main": each_url})


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def missing(request: pytest.FixtureRequest, fresh_url: FreshURL) -> sa.URL:
    """A database that does not exist, on each kind of engine in turn."""
    return fresh_url(request.param)


@pytest.fixture
def cli(project: Project, cli_of: CliOf) -> Cli:
    """The command line of the project."""
    return cli_of(project)
