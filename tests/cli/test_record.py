"""The command that makes the record of a database right."""

from __future__ import annotations

import sys

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Cli, CliOf
from tests.cli.test_databases import ended, spawn, two_steps
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows

RECORDED = "SELECT DISTINCT name, environment FROM qapla_db_record"


def copy_of(project: Project, cli: Cli) -> None:
    """Let the database of a project be a copy of one of another environment."""
    two_steps(project)
    cli("ensure")
    rows(
        project.database().settings.url,
        "UPDATE qapla_db_record SET environment = 'production'",
    )


def edit(project: Project) -> None:
    """Write something else into the file of a revision that was applied."""
    path = project.directory("main") / "versions" / "a1_.py"
    path.write_text(f"{path.read_text()}\n\nedited = True\n")


@pytest.fixture
def light(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    """A project with one database on SQLite."""
    return make_project({"main": fresh_url("sqlite")})


def test_copy(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """A copy of production is migrated again after its record was rewritten."""
    copy_of(project, cli)
    assert "qapla-db rewrite-record main" in cli.error("upgrade")
    assert "main: recorded as main@development\n" == (
        cli("rewrite-record", "main", "--yes", "main@production").stdout
    )
    assert [("main", "development")] == rows(each_url, RECORDED)
    assert "nothing to do" in cli("upgrade").stdout


def test_without_a_terminal(light: Project, cli_of: CliOf) -> None:
    """A script has to say what the record says; nothing else is enough."""
    cli = cli_of(light)
    copy_of(light, cli)
    url = light.database().settings.url
    said = cli("rewrite-record", code=3)
    assert "says main@production, the settings say main@development" in said.stdout
    assert "a script that means it says --yes main@production" in said.stderr
    assert "it says main@production" in cli.error("rewrite-record", "--yes", "main@staging")
    assert [("main", "production")] == rows(url, RECORDED)


def test_of_what_is_right(light: Project, cli_of: CliOf) -> None:
    """A record that is right, or not there, is not changed, and nobody is asked."""
    cli = cli_of(light)
    two_steps(light)
    assert "is not there" in cli.error("rewrite-record")
    cli("ensure")
    assert "it says main@development already" in cli.error("rewrite-record")


def test_one_at_a_time(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """What is confirmed is the record of one database."""
    cli = cli_of(make_project({name: fresh_url("sqlite") for name in ("main", "audit")}))
    for names in (["main", "audit"], []):
        assert "name one of main, audit" in cli.error("rewrite-record", *names, code=2)


def test_version_table(make_project: MakeProject, cli_of: CliOf, each_url: sa.URL) -> None:
    """The record of a version table with a name of its own is found."""
    project = make_project({"main": each_url})
    project.write_env("main", version_table="versions")
    cli = cli_of(project)
    copy_of(project, cli)
    cli("rewrite-record", "--yes", "main@production")
    assert [("main", "development")] == rows(each_url, RECORDED)


def test_accept_edits(project: Project, cli: Cli) -> None:
    """An edit that was meant is accepted, by who says which database; then check is content."""
    two_steps(project)
    cli("ensure")
    assert "no file was edited" in cli("rewrite-record", "--accept-edits").stdout
    before = [one for one in cli.json("check", codes=(0, 1))[0] if one["rule"] == "edited"]
    edit(project)
    (found,) = [one for one in cli.json("check", codes=(0, 1))[0] if one["rule"] == "edited"]
    assert ([], "a1") == (before, found["revision"])
    assert "qapla-db rewrite-record main --accept-edits" in found["remedy"]
    said = cli("rewrite-record", "--accept-edits", code=3)
    assert "migrations/main/versions/a1_.py" in said.stdout
    assert "--yes main@development" in said.stderr
    cli.error("rewrite-record", "--accept-edits", "--yes", "main@production")
    accepted = cli("rewrite-record", "--accept-edits", "--yes", "main@development").stdout
    assert "main: a1 recorded as the files are\n" == accepted
    assert "no file was edited" in cli("rewrite-record", "--accept-edits").stdout


def test_accept_edits_of_a_copy(light: Project, cli_of: CliOf) -> None:
    """Edits are accepted for no other database than the settings mean."""
    cli = cli_of(light)
    copy_of(light, cli)
    edit(light)
    assert "recorded as main@production" in cli.error(
        "rewrite-record", "--accept-edits", "--yes", "main@development"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("answer, code", [("main@production", 0), ("main", 3)])
def test_dialogue(light: Project, cli_of: CliOf, answer: str, code: int) -> None:
    """On a terminal what the record says is typed."""
    cli = cli_of(light)
    copy_of(light, cli)
    child = spawn(cli, "rewrite-record", "main")
    child.expect("says main@production, the settings say main@development")
    child.expect("type main@production:")
    child.expect("> ")
    child.sendline(answer)
    child.expect("main@production was not typed" if code else "recorded as main@development")
    assert code == ended(child)
