"""The commands that answer yes or no: status, check, plan, rehearse."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Cli, CliOf
from tests.cli.test_databases import CREATE, DROP, two_steps
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows, tables

MODELS = """
    Model = sa.MetaData()
    for name in ("airport", "runway"):
        sa.Table(name, Model, sa.Column("id", sa.Integer, primary_key=True))
"""


def cells(cli: Cli, *arguments: str, code: int) -> list[list[str]]:
    """Return the table that status prints, without its titles."""
    lines = cli("status", *arguments, code=code).stdout.splitlines()
    assert ["database", "state", "current", "head", "pending", "server", "address"] == (
        lines[0].split()
    )
    return [line.split() for line in lines[1:]]


def test_status(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """status is 1 while revisions are pending or models differ, and 0 when all is well."""
    two_steps(project)
    project.write_env("main", MODELS)
    row, note = cells(cli, code=1)
    assert ["main", "behind", "base", "a2", "2"] == row[:5]
    assert "lacks a1, a2; run: qapla-db upgrade main" in " ".join(note)
    cli("upgrade")
    ((name, state, current, head, pending, *_),) = cells(cli, code=0)
    assert ["main", "ready", "a2", "a2", "0"] == [name, state, current, head, pending]
    rows(each_url, "DROP TABLE runway")
    assert "drifted" == cells(cli, "main", code=1)[0][1]
    assert "ready" == cells(cli, "--no-drift", code=0)[0][1]


def test_status_of_all(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """Without names status is about all databases: one that is down does not hide the others."""
    urls = {
        "main": fresh_url("sqlite"),
        "down": sa.make_url("postgresql://nobody:hush@127.0.0.1:1/shop"),
        "gone": fresh_url("postgresql"),
    }
    project = make_project(urls)
    for name in urls:
        two_steps(project, name)
    cli = cli_of(project)
    cli("ensure", "main")
    found, code = cli.json("status", "--no-drift", codes=(0, 1))
    assert 1 == code
    assert {"main": True, "down": False, "gone": False} == {
        one["name"]: one["ready"] for one in found
    }
    table = cells(cli, code=1)
    assert ["ready", "unreachable", "missing"] == [row[1] for row in table[:3]]
    assert "hush" not in str(found) + str(table)


def test_check(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """check is 0 when models, migrations and database agree, else it says what to do."""
    two_steps(project)
    project.write_env("main", MODELS)
    assert "qapla-db upgrade main" in cli("check", code=1).stdout
    assert "" == cli("check", "--no-database").stdout
    cli("upgrade")
    assert "" == cli("check").stdout
    project.write_env("main", MODELS.replace("runway", "gate"))
    assert "qapla-db revision main" in cli("check", code=1).stdout
    (found,) = cli.json("check", codes=(1,))
    assert ("main", "models") == (found["database"], found["rule"])


def test_plan(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """plan shows the SQL of what is pending, and runs nothing."""
    two_steps(project)
    cli("upgrade", "a1")
    text = cli("plan").stdout
    assert text.startswith("main: a2 runways\n    CREATE TABLE runway")
    assert "airport" not in text
    assert "runway" not in tables(each_url)
    (step,) = cli.json("plan", "head")
    assert ("main", "a2") == (step["database"], step["revision"])
    cli("upgrade")
    assert "main: nothing to do\n" == cli("plan").stdout


def test_plan_shows_locks(
    make_project: MakeProject, cli_of: CliOf, postgresql_database_url: sa.URL
) -> None:
    """On PostgreSQL plan shows which tables are locked, and what that blocks."""
    project = make_project({"main": postgresql_database_url})
    two_steps(project)
    project.revision("a3", DROP.format("airport"), CREATE.format("airport"), after="a2")
    cli = cli_of(project)
    cli("upgrade", "a2")
    assert "locks airport: ACCESS EXCLUSIVE, blocks" in cli("plan").stdout


@pytest.mark.parametrize("start", [[], ["--from", "a1"], ["--from", "-1"], ["--from", "-2"]])
def test_rehearse(project: Project, cli: Cli, each_url: sa.URL, start: list[str]) -> None:
    """rehearse is 0 where an upgrade loses nothing; the real database is not touched."""
    two_steps(project)
    project.write_env("main", MODELS)
    assert "main: nothing found" in cli("rehearse", "--rows", "5", *start).stdout
    assert [] == tables(each_url)


def test_rehearse_finds(project: Project, cli: Cli) -> None:
    """rehearse is 1 where a revision loses data, and says which."""
    two_steps(project)
    project.write_env("main", MODELS.replace('"runway"', ""))
    project.revision("a3", DROP.format("runway"), CREATE.format("runway"), after="a2")
    assert "FOUND lost table" in cli("rehearse", "--rows", "5", code=1).stdout
    (found,) = cli.json("rehearse", "--rows", "5", codes=(1,))
    assert not found["ok"]
    for start in ("nope", "-9", ""):
        assert repr(start) in cli.error("rehearse", "--from", start)
