"""The commands of migrations, on each kind of engine."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import Cli, CliOf
from tests.cli.test_databases import CREATE, two_steps
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, Project, tables


def test_there_and_back(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """upgrade, downgrade and stamp go where they are told, and current says where that is."""
    two_steps(project)
    assert "main: base\n" == cli("current").stdout
    assert "main: base -> a1 airports\n" == cli("upgrade", "a1").stdout
    assert "main: a1 -> a2 runways\n" == cli("migrate", "main").stdout
    assert "main: a2\n" == cli("current").stdout
    assert "main: a2 -> a1 undo runways\n" == cli("downgrade", "-1").stdout
    assert "main: a1 -> a2 (stamped)\n" == cli("stamp", "main", "head").stdout
    assert "runway" not in tables(each_url)
    cli("stamp", "a1")
    cli("downgrade", "main", "base")
    assert [{"database": "main", "revisions": []}] == json.loads(cli("current", "--json").stdout)


def test_steps_forward(project: Project, cli: Cli) -> None:
    """+1 is one revision further."""
    two_steps(project)
    cli("upgrade", "+1")
    assert "main: a1\n" == cli("current").stdout


def test_a_number_is_a_value(project: Project, cli: Cli) -> None:
    """Behind an option that takes a value -1 is that value, elsewhere it is a revision."""
    two_steps(project)
    cli("merge", "-m", "-1")
    cli("revision", "--empty", "-m", "-1")
    assert "-1" == cli.json("history")[0]["message"]


def test_history_of_a_long_message(project: Project, cli: Cli) -> None:
    """A message of several lines is one line of the list."""
    project.revision("a1", "pass", doc="airports\nwith their towers")
    assert 2 == len(cli("history").stdout.splitlines())


def test_heads_and_history(project: Project, cli: Cli) -> None:
    """heads and history list the revisions without a server, for people and for machines."""
    two_steps(project)
    assert "main: a2\n" == cli("heads").stdout
    assert [{"database": "main", "revisions": ["a2"]}] == json.loads(cli("heads", "--json").stdout)
    text = cli("history").stdout.splitlines()
    assert ["database", "revision", "after", "message"] == text[0].split()
    assert ["main", "a2", "(head)", "a1", "runways"] == text[1].split()
    assert ["main", "a1", "airports"] == text[2].split()
    newest, oldest = json.loads(cli("history", "--json").stdout)
    assert (["a1"], True, "a2_.py") == (
        newest["after"],
        newest["is_head"],
        newest["path"].rpartition("/")[2],
    )
    assert ([], False, "airports") == (oldest["after"], oldest["is_head"], oldest["message"])
    assert 1 == len(json.loads(cli("history", "a2:head", "--json").stdout))
    assert "is no range" in cli.error("history", "a1", code=2)


def test_sql(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """sql prints what is pending, or a range, and runs nothing."""
    two_steps(project)
    assert "CREATE TABLE airport" in cli("sql").stdout
    assert [] == tables(each_url)
    cli("upgrade", "a1")
    pending = cli("sql", "main").stdout
    assert "CREATE TABLE runway" in pending
    assert "CREATE TABLE airport" not in pending
    assert "CREATE TABLE airport" in cli("sql", "base:a1").stdout
    assert "runway" not in tables(each_url)


def test_sql_of_all(two: Project, cli_of: CliOf) -> None:
    """The SQL of several databases says where that of each begins."""
    text = cli_of(two)("sql", "--all").stdout
    main, _, audit = text.partition("-- audit: sqlite")
    assert main.startswith("-- main: sqlite")
    assert "runway" in main
    assert "CREATE TABLE event" in audit
    assert "event" not in main


def test_sql_that_fails(two: Project, cli_of: CliOf) -> None:
    """Of SQL that cannot be written to its end nothing is printed: nobody shall run a half."""
    two.revision("a3", "op.execute('SELECT 3')\n1 / 0", after="a2")
    result = cli_of(two)("sql", "main", code=3)
    assert "ZeroDivisionError" in result.stderr
    assert "" == result.stdout


def test_revision(project: Project, cli: Cli, each_url: sa.URL) -> None:
    """revision compares models and migrations, not the database; nothing new, no file."""
    project.write_env(
        "main",
        """
        Model = sa.MetaData()
        sa.Table("ship", Model, sa.Column("id", sa.Integer, primary_key=True))
        """,
    )
    assert "main: wrote migrations/main/versions/" in cli("revision", "-m", "ships").stdout
    assert [] == tables(each_url)
    assert "no revision is written" in cli("make_migrations", "-m", "more").stdout
    assert "wrote" in cli("revision", "--empty", "-m", "data").stdout
    assert all(re.match(r"\d{8}_[0-9a-f]{12}_", name) for name in project.versions())
    assert ["data.py", "ships.py"] == sorted(name.rpartition("_")[2] for name in project.versions())
    cli("upgrade")
    assert "ship" in tables(each_url)


NO_PTY = sys.platform == "win32"
AGAIN = 2.0
"""Seconds after which a person presses a key again."""


@pytest.mark.skipif(NO_PTY, reason="no pseudo-terminals")
@pytest.mark.parametrize(("typed", "code"), [(b"\x04", 1), (b"\x03", 130)])
def test_no_answer(
    make_project: MakeProject, fresh_url: FreshURL, cli_of: CliOf, typed: bytes, code: int
) -> None:
    """Ctrl-D or Ctrl-C at the question about a rename ends the command, and no file is written."""
    project = make_project({"main": fresh_url("sqlite")})
    cli, ship = (
        cli_of(project),
        "Model = sa.MetaData()\nsa.Table('s', Model, sa.Column({!r}, sa.Text))",
    )
    project.write_env("main", ship.format("old"))
    cli("revision", "-m", "ships")
    project.write_env("main", ship.format("new"))
    output, status = on_terminal(
        [sys.executable, "-m", "qapla_db", "revision"], project.root, typed
    )
    assert "Was s.old renamed to s.new?" in output
    assert code == status, output
    assert 1 == len(project.versions())


def on_terminal(command: list[str], root: Path, typed: bytes) -> tuple[str, int]:
    """Run a command on a terminal, type once it asks, and return its output and exit code."""
    import pty
    import termios

    ours, theirs = pty.openpty()

    def make_it_the_terminal() -> None:
        import fcntl

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        cwd=root,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=make_it_the_terminal,
    )
    os.close(theirs)
    output, deadline = b"", time.monotonic() + WAIT
    try:
        while time.monotonic() < deadline:
            # a signal between the question and the wait for its answer is not noticed by
            # Python, and typed again as a person would do
            if not select.select([ours], [], [], AGAIN)[0]:
                if b"[y/N]" in output:
                    os.write(ours, typed)
                continue
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            asked = b"[y/N]" in output
            output += part
            if not asked and b"[y/N]" in output:
                os.write(ours, typed)
        return output.decode(), process.wait(WAIT)
    finally:
        process.kill()
        process.wait(WAIT)
        os.close(ours)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "mariadb"])
def test_upgrade_missing(
    make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL, kind: str
) -> None:
    """upgrade of a database that is not there names --create, which makes it."""
    project = make_project({"main": fresh_url(kind)})
    two_steps(project)
    cli = cli_of(project)
    for arguments in (["downgrade", "base"], ["stamp"], ["current"], ["sql"]):
        assert "is not there" in cli.error(*arguments)
    line = cli.error("upgrade")
    assert "is not there; 'qapla-db ensure main' makes and migrates it" in line
    assert "upgrade --create" in line
    assert "main: created" in cli("upgrade", "--create").stdout
    cli("drop", "--yes", "main")
    assert "upgrade --create" in cli.error("upgrade")


def test_merge(project: Project, cli: Cli) -> None:
    """Two heads are an error that says merge, and merge joins them."""
    two_steps(project)
    project.revision("b2", CREATE.format("gate"), after="a1", doc="gates")
    for arguments in (["upgrade"], ["sql"], ["revision", "-m", "x"]):
        assert "'qapla-db merge main'" in cli.error(*arguments).replace(
            ": qapla-db merge main", (" 'qapla-db merge main'")
        )
    assert "main: wrote migrations/main/versions/" in cli("merge", "-m", "join").stdout
    cli("upgrade")
    assert 1 == len(json.loads(cli("heads", "--json").stdout)[0]["revisions"])
    assert "nothing to merge" in cli("merge").stdout


# --- revisions that cannot be located


@pytest.fixture
def two(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    project = make_project({"main": fresh_url("sqlite"), "audit": fresh_url("sqlite")})
    two_steps(project)
    project.revision("e1", CREATE.format("event"), name="audit")
    for name in project.names:
        project.database(name).create()
    return project


def test_merge_of_dependent_heads(project: Project, cli: Cli) -> None:
    """Heads that no revision can follow together are not joined, and the way on is said."""
    two_steps(project)
    project.revision("b1", "pass")
    path = project.directory("main") / "versions" / "b1_.py"
    path.write_text(path.read_text().replace("depends_on = None", "depends_on = 'a2'"))
    path.write_text(path.read_text().replace("branch_labels = ", ""))
    before = project.versions()
    assert "qapla-db upgrade main heads" in cli.error("merge")
    assert before == project.versions()


def test_unknown_revision(two: Project, cli_of: CliOf) -> None:
    """A revision that nobody has is told as such, with the command that lists them."""
    line = cli_of(two).error("upgrade", "main", "nope")
    assert "there is no revision 'nope' in" in line
    assert "'qapla-db history main'" in line
    assert "(databases: main, audit)" in line


def test_revision_of_another_database(two: Project, cli_of: CliOf) -> None:
    """A revision of another registered database is told to be that."""
    line = cli_of(two).error("upgrade", "main", "e1")
    assert "It belongs to the database 'audit'" in line


def git(project: Project, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    subprocess.run(
        command,
        cwd=project.root,
        check=True,
        capture_output=True,
        timeout=60,
    )


@pytest.fixture
def in_git(two: Project) -> Project:
    git(two, "init", "-b", "trunk")
    git(two, "add", "-A")
    git(two, "commit", "-m", "start")
    return two


def test_revision_on_another_branch(in_git: Project, cli_of: CliOf) -> None:
    """A database that is ahead, on another git branch, is told to be that."""
    git(in_git, "checkout", "-b", "feature")
    in_git.revision("f3fea7", CREATE.format("gate"), after="a2")
    git(in_git, "add", "-A")
    git(in_git, "commit", "-m", "gates")
    cli = cli_of(in_git)
    cli("upgrade", "main")
    git(in_git, "checkout", "trunk")
    line = cli.error("upgrade", "main")
    assert "is at the revision 'f3fea7', which no file in" in line
    assert "is on the branch 'feature'" in line


def test_deleted_revision(in_git: Project, cli_of: CliOf) -> None:
    """A database at a revision whose file was deleted gets the command that brings it back."""
    cli = cli_of(in_git)
    cli("upgrade", "main")
    git(in_git, "rm", "migrations/main/versions/a2_.py")
    git(in_git, "commit", "-m", "no runways")
    line = cli.error("upgrade", "main")
    assert "a2_.py was deleted in the commit" in line
    command = line.partition("to have it back: ")[2].split()
    git(in_git, *command[1:])
    assert "nothing to do, at a2" in cli("upgrade", "main").stdout


EVERYWHERE = [
    ["upgrade", "main"],
    ["downgrade", "main", "base"],
    ["stamp", "main", "a2"],
    ["plan", "main"],
    ["heads", "main"],
    ["history", "main"],
    ["sql", "main"],
    ["merge", "main"],
    ["revision", "main", "-m", "more"],
    ["revision", "main", "-m", "more", "--empty"],
]


@pytest.mark.filterwarnings("default:Revision")
def test_deleted_revision_in_the_middle(in_git: Project, cli_of: CliOf) -> None:
    """Without a file that another one follows every command names both, and brings it back."""
    in_git.revision("a3", "pass", after="a2")
    git(in_git, "add", "-A")
    git(in_git, "commit", "-m", "more")
    cli = cli_of(in_git)
    cli("upgrade", "main")
    git(in_git, "rm", "migrations/main/versions/a2_.py")
    for command in EVERYWHERE:
        line = cli.error(*command)
        assert "the revision 'a2' of the database 'main' is needed by " in line, command
        assert "migrations/main/versions/a3_.py and its file is missing" in line
        assert "a2_.py is in the commit" in line
    git(in_git, "commit", "-m", "no runways")
    line = cli.error("upgrade", "main")
    command = line.partition("to have it back: ")[2].split()
    git(in_git, *command[1:])
    assert "nothing to do, at a3" in cli("upgrade", "main").stdout


@pytest.mark.filterwarnings("default:Revision")
def test_lost_revision_in_the_middle(two: Project, cli_of: CliOf) -> None:
    """Without git what is missing is named too."""
    (two.directory("main") / "versions" / "a1_.py").unlink()
    line = cli_of(two).error("heads", "main")
    assert "'a1'" in line
    assert "a2_.py and its file is missing. Bring the file back" in line


def test_lost_revision(two: Project, cli_of: CliOf) -> None:
    """Without git there is still a way on."""
    cli = cli_of(two)
    cli("upgrade", "main")
    (two.directory("main") / "versions" / "a2_.py").unlink()
    line = cli.error("upgrade", "main")
    assert "is at the revision 'a2', which no file in" in line
    assert "qapla-db stamp main REVISION --purge" in line
    cli.error("stamp", "main", "a1")
    assert "main: base -> a1 (stamped)\n" == cli("stamp", "main", "a1", "--purge").stdout
    assert "nothing to do, at a1" in cli("upgrade", "main").stdout
    cli("stamp", "main", "base", "--purge")
    assert "main: base\n" == cli("current", "main").stdout


# --- other errors


def test_without_directory(two: Project, cli_of: CliOf) -> None:
    """A database without a migrations directory gets the command that writes one."""
    cli = cli_of(two)
    two.directory("audit").rename(two.root / "away")
    for command in ("upgrade", "current", "heads", "history", "sql"):
        assert "'qapla-db init audit' writes it" in cli.error(command, "audit")


def test_broken_revision(two: Project, cli_of: CliOf) -> None:
    """A mistake in a revision is told with its file and line."""
    two.revision("a3", "1 / 0", after="a2")
    line = cli_of(two).error("upgrade", "main")
    assert "ZeroDivisionError" in line
    assert "a3_.py" in line


@pytest.mark.parametrize("command", ["current", "upgrade", "create", "ensure"])
def test_server_down(make_project: MakeProject, cli_of: CliOf, command: str) -> None:
    """A server that is down is one line with its address and the setting, without password."""
    project = make_project({"main": "postgresql://nobody:hush@127.0.0.1:1/shop"})
    two_steps(project)
    line = cli_of(project).error(command)
    assert "postgresql+psycopg://nobody:***@127.0.0.1:1" in line
    assert "'db:main:url'" in line
    assert "hush" not in line


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_wrong_password(
    make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL, kind: str
) -> None:
    """A user that the server refuses is one line with what to correct, without the password."""
    url = fresh_url(kind).set(username="stranger", password="hush")
    project = make_project({"main": url})
    two_steps(project)
    cli = cli_of(project)
    for arguments in (["upgrade"], ["current"], ["ensure", "--wait", "30"]):
        line = cli.error(*arguments)
        assert "stranger" in line
        assert "'db:main:url'" in line
        assert "hush" not in line
        if arguments != ["ensure", "--wait", "30"]:
            assert "runs, but refuses the user or the password" in line
            assert "create()" not in line


def test_driver_missing(make_project: MakeProject, cli_of: CliOf) -> None:
    """A driver that is not installed is named with what to install."""
    cli = cli_of(make_project({"main": "mysql+mysqldb://nobody@127.0.0.1:1/shop"}))
    assert "pip install" in cli.error("upgrade")
