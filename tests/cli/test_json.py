"""What a command prints for a program to read."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from qapla_db.cli.main import app
from tests.cli.conftest import Cli, CliOf
from tests.cli.test_databases import two_steps
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project

WAIT = 60


@pytest.fixture
def noisy(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project whose env.py and revisions print, by themselves and by programs that they run."""
    project = make_project({"main": fresh_url("sqlite")})
    two_steps(project)
    versions = project.directory("main") / "versions"
    for path in [project.directory("main") / "env.py", *versions.iterdir()]:
        noise = "print('by itself')\nimport os; os.system('echo by a program')\n"
        path.write_text(noise + path.read_text())
    return project


@pytest.mark.parametrize(
    "command",
    ["status", "check", "lint", "plan", "rehearse", "doctor", "history", "current", "heads"],
)
def test_nothing_but_json(noisy: Project, cli_of: CliOf, command: str) -> None:
    """What the project prints goes to standard error where JSON is asked for."""
    cli: Cli = cli_of(noisy)
    cli("ensure")
    with contextlib.chdir(cli.root):
        result = CliRunner().invoke(app, [command, "--json"])
    assert isinstance(json.loads(result.stdout), list)
    assert ("by itself" in result.stderr) == (command != "doctor")
    assert "by itself" not in cli("current").stderr, "without --json it is printed as ever"


def test_of_programs(noisy: Project, cli_of: CliOf) -> None:
    """So does what programs print that a revision runs, and what is printed before comes first."""
    cli = cli_of(noisy)
    cli("ensure")
    done = subprocess.run(
        [sys.executable, "-m", "qapla_db", "history", "--json"],
        cwd=cli.root,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert ["a2", "a1"] == [one["revision"] for one in json.loads(done.stdout)], done.stderr
    assert "by a program" in done.stderr
