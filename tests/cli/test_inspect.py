"""The commands that look: diagram, shell, doctor, lint."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.cli.diagram import mermaid
from qapla_db.migrations import looking
from tests.cli.conftest import Cli, CliOf, Files
from tests.cli.test_databases import ended, spawn, two_steps
from tests.cli.test_init import models, newcomer
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, tables

WAIT = 60


def lines_of(metadata: sa.MetaData) -> list[str]:
    return [line.strip() for line in mermaid([metadata]).splitlines()]


def key(name: str = "id") -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True)


def reference(name: str, target: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.ForeignKey(target), **options)


def test_diagram_of_one_table() -> None:
    """A table is an entity with types, keys and what may be NULL."""
    metadata = sa.MetaData()
    sa.Table(
        "ship",
        metadata,
        key(),
        sa.Column("name", sa.String(40), unique=True, nullable=False),
        sa.Column("mass", sa.Numeric(10, 2)),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Enum("a", "b", name="ship_kind"), nullable=False),
    )
    expected = """
        erDiagram
        ship {
        INTEGER id PK
        VARCHAR(40) name UK
        NUMERIC(10_2) mass "may be NULL"
        DATETIME made
        ship_kind kind
        }
    """
    assert dedent(expected).split("\n")[1:-1] == lines_of(metadata)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"nullable": False}, 'port ||..o{ ship : "port_id"'),
        ({"nullable": True}, 'port |o..o{ ship : "port_id"'),
        ({"nullable": False, "unique": True}, 'port ||..o| ship : "port_id"'),
        ({"primary_key": True}, 'port ||--o| ship : "port_id"'),
    ],
)
def test_diagram_of_references(options: dict[str, bool], line: str) -> None:
    """How many rows stand at either end follows from NULL and from what is unique."""
    metadata = sa.MetaData()
    sa.Table("port", metadata, key())
    sa.Table("ship", metadata, reference("port_id", "port.id", **options))
    assert line == lines_of(metadata)[-1]


def test_diagram_of_a_link_table() -> None:
    """A link table is an entity between the two, each of which has any number of its rows."""
    metadata = sa.MetaData()
    sa.Table("port", metadata, key())
    sa.Table("ship", metadata, key())
    sa.Table(
        "calls",
        metadata,
        reference("ship_id", "ship.id", primary_key=True),
        reference("port_id", "port.id", primary_key=True),
    )
    assert ['port ||--o{ calls : "port_id"', 'ship ||--o{ calls : "ship_id"'] == (
        lines_of(metadata)[-2:]
    )


def test_diagram_of_odd_names() -> None:
    """Schemas, spaces, quotes, percent signs and digits in names give a diagram that is read."""
    metadata = sa.MetaData()
    sa.Table('a "b" 100%', metadata, key("2nd key"), schema="old")
    sa.Table("a b 100", metadata, key(), schema="old")
    sa.Table("1", metadata, reference("to", "old.a b 100.id"), reference("self", "1.to"))
    lines = lines_of(metadata)
    assert 't_1["1"] {' in lines
    assert 'old_a_b_100["old.a #quot;b#quot; 100#37;"] {' in lines
    assert 'old_a_b_100_2["old.a b 100"] {' in lines
    assert 'INTEGER c_2nd_key PK "2nd key"' in lines
    assert 'old_a_b_100_2 |o..o{ t_1 : "to"' in lines
    assert 't_1 |o..o{ t_1 : "self"' in lines


def test_diagram_command(make_project: MakeProject, cli_of: CliOf) -> None:
    """diagram prints the models of a database, and needs no server."""
    project = make_project({"main": "postgresql://nobody@127.0.0.1:1/shop"})
    project.write_env(
        "main",
        """
        Model = sa.MetaData()
        sa.Table("ship", Model, sa.Column("id", sa.Integer, primary_key=True))
        """,
    )
    text = cli_of(project)("diagram").stdout
    assert "erDiagram\n    ship {\n        INTEGER id PK\n    }\n" == text


# --- shell


def test_shell(files: Files) -> None:
    """shell has the application, the databases, a session of each by its name, the models."""
    newcomer(files, "main")
    files.write({"shop/models.py": models()})
    cli = files.cli
    cli("initdb")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "qapla_db", "shell"],
        cwd=files.root,
        input="print(app.dbs is dbs, main.query(Item).count(), list(dbs))\n",
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert "True 0 ['main']" in done.stdout, done.stderr
    assert 0 == done.returncode


@pytest.mark.parametrize(
    ("line", "code"), [("exit()", 0), ("exit(4)", 4), ("raise SystemExit('bye')", 1), ("1 / 0", 0)]
)
def test_end_of_shell(files: Files, line: str, code: int) -> None:
    """The shell ends as Python does, and shows the errors of what was typed and no others."""
    newcomer(files, "main")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "qapla_db", "shell"],
        cwd=files.root,
        input=f"{line}\n",
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert code == done.returncode
    assert "error:" not in done.stderr
    assert "ModuleNotFoundError" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_shell_on_a_terminal(files: Files) -> None:
    """On a terminal shell says what is there, and works without any migrations."""
    newcomer(files, "main")
    child = spawn(files.cli, "shell")
    child.expect("sessions: main")
    child.sendline("main")
    child.expect("session of 'main'")
    child.sendline("exit()")
    assert 0 == ended(child)


# --- doctor


def test_doctor(cli: Cli, each_url: sa.URL) -> None:
    """doctor says what the server and the driver are, and how many connections there are."""
    (found,), code = cli.json("doctor", codes=(0, 1))
    assert {"server", "driver", "pool", "SQLAlchemy"} <= set(found["facts"])
    assert "main" == found["database"]
    assert code == (1 if found["complaints"] else 0)
    if "postgresql" in each_url.drivername:
        assert "200" == found["facts"]["connections of the server"]
        assert any("fsync" in one for one in found["complaints"])
        assert any("superuser" in one for one in found["complaints"])
    assert [] == tables(each_url)


def test_doctor_complains_about_settings(
    make_project: MakeProject, cli_of: CliOf, postgresql_database_url: sa.URL
) -> None:
    """doctor complains about a pool that is larger than the server, and about AUTOCOMMIT."""
    project = make_project({"main": postgresql_database_url})
    path = project.root / project.settings / "default.py"
    options = {"pool_size": 300, "isolation_level": "AUTOCOMMIT", "pool_pre_ping": False}
    path.write_text(f"{path.read_text()}    settings['db:main:options'] = {options}\n")
    text = cli_of(project)("doctor", code=1).stdout
    assert "one process may open 3" in text
    assert "and the server takes 200 in all" in text
    assert "sets AUTOCOMMIT" in text
    assert "pool_pre_ping off" in text


def test_doctor_without_a_server(make_project: MakeProject, cli_of: CliOf) -> None:
    """doctor says that a server does not answer, and what it knows without it."""
    project = make_project({"main": "postgresql://nobody:hush@127.0.0.1:1/shop"})
    text = cli_of(project)("doctor", code=1).stdout
    assert "does not answer" in text
    assert "psycopg" in text
    assert "hush" not in text


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that accepts connections and says nothing, for half a minute."""
    # a test need not wait as long as a user does
    monkeypatch.setitem(looking._PATIENCE["pymysql"], "read_timeout", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        limit = threading.Timer(30, server.close)
        limit.start()
        yield server.getsockname()[1]
        limit.cancel()


@pytest.mark.parametrize(
    "command", [("check",), ("revision", "-m", "x"), ("rehearse", "--from", "base")]
)
def test_scratch_database_of_a_silent_server(
    make_project: MakeProject, cli_of: CliOf, silent: int, command: tuple[str, ...]
) -> None:
    """What needs a scratch database waits seconds, not minutes, for a server that is silent."""
    project = make_project({"main": f"mariadb://nobody:hush@127.0.0.1:{silent}/shop"})
    project.revision("a1", "pass")
    began = time.monotonic()
    assert "does not answer" in cli_of(project).error(*command)
    assert time.monotonic() - began < 15


def test_doctor_of_a_silent_server(make_project: MakeProject, cli_of: CliOf, silent: int) -> None:
    """doctor waits seconds, not minutes, for a server that accepts a connection and is silent."""
    cli = cli_of(make_project({"main": f"mariadb://nobody:hush@127.0.0.1:{silent}/shop"}))
    began = time.monotonic()
    text = cli("doctor", code=1).stdout
    assert time.monotonic() - began < 10
    assert "does not answer" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["ensure", "--wait", "1"],
        ["create"],
        ["drop", "--yes", "main"],
        ["recreate"],
        ["initdb"],
        ["upgrade"],
        ["upgrade", "--create"],
        ["current"],
    ],
    ids=" ".join,
)
def test_silent_server(
    make_project: MakeProject, cli_of: CliOf, silent: int, arguments: list[str]
) -> None:
    """No command waits minutes for a server that accepts a connection and is silent."""
    url = f"mariadb://nobody:hush@127.0.0.1:{silent}/shop_test"
    cli = cli_of(make_project({"main": url}, {"main": url}))
    began = time.monotonic()
    assert "does not answer" in cli(*arguments, code=3).stderr
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("command", ["revision", "rehearse", "check"])
def test_shadow_without_a_server(make_project: MakeProject, cli_of: CliOf, command: str) -> None:
    """What needs a scratch database says in one line that its server is down."""
    project = make_project({"main": "postgresql://nobody:hush@127.0.0.1:1/shop"})
    two_steps(project)
    done = subprocess.run(
        [sys.executable, "-m", "qapla_db", command, "-A", f"{project.module}:app"],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert 3 == done.returncode
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "hush" not in line


# --- lint


def test_lint(make_project: MakeProject, cli_of: CliOf, fresh_url: FreshURL) -> None:
    """lint names file, line and rule, and exits with 1; with nothing to say it exits with 0."""
    project: Project = make_project({"main": fresh_url("postgresql")})
    two_steps(project)
    cli = cli_of(project)
    assert "" == cli("lint").stdout
    project.revision("a3", "op.drop_table('airport')", after="a2")
    text = cli("lint", code=1).stdout
    assert text.startswith("migrations/main/versions/a3_.py:")
    assert "drop-table" in text
    (found,) = cli.json("lint", "a3", codes=(1,))
    assert ("main", "a3", "drop-table") == (found["database"], found["revision"], found["rule"])
    assert "" == cli("lint", "main", "a1").stdout
    assert "" == cli("lint", "main", "-1").stdout
    for far in ("-3", "-9"):
        assert f"no revision '{far}'" in cli.error("lint", "main", far)
