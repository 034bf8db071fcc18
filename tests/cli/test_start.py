"""How the command starts and ends: quickly, with exit codes, without tracebacks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from qapla_db import __version__
from qapla_db.cli import checks, databases, inspect, record, revisions, upgrades
from qapla_db.cli.main import app
from tests.cli.conftest import Cli, Files
from tests.support import wait_until

PYTHON = [sys.executable, "-W", "error"]
WAIT = 60.0
HEAVY = {"sqlalchemy", "alembic", "morfdict", "pyramid", "celery", "shop", "IPython"}

MODULES = (revisions, upgrades, databases, record, checks, inspect)
COMMANDS = [name for module in MODULES for name in module.COMMANDS]

WORDS = [
    "upgrade", "downgrade", "drop", "create", "revision", "history", "sql", "current", "heads",
    "stamp", "merge", "ensure", "initdb", "init", "main", "head", "base", "-1", "+1", "a:b", ":",
    "--all", "--yes", "--json", "-A", "--app", "--settings_path", "--tests", "--rename", "-m",
    "--wait", "--models", "--empty", "--", "-", "x=y", "nope", "[/red]", "%s", "{}", "é", "\ud800",
    "main@head", "heads", "a,b", "..", "/", "shop:app", "--accept-edits",
]  # fmt: skip


def run(*arguments: str, cwd: Path, **environ: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PYTHON, *arguments],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=WAIT,
        stdin=subprocess.DEVNULL,
    )
    assert 0 == done.returncode, done.stderr
    return done


@pytest.mark.parametrize("arguments", [["--help"], ["upgrade", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    """For its help the command imports neither SQLAlchemy nor Alembic nor the application."""
    (tmp_path / "shop.py").write_text("app = 1")
    module = ["-X", "importtime", "-m", "qapla_db"]
    done = run(*module, *arguments, cwd=tmp_path, QAPLA_APP="shop:app")
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    imported = {name.partition(".")[0] for name in lines}
    assert "typer" in imported
    assert set() == imported & HEAVY


def test_version(tmp_path: Path) -> None:
    """--version prints the version."""
    assert f"qapla-db {__version__}\n" == run("-m", "qapla_db", "--version", cwd=tmp_path).stdout


def test_script(tmp_path: Path) -> None:
    """The installed command is the same as the module."""
    script = Path(sys.executable).with_name("qapla-db")
    assert script.exists(), f"install the package again: {script} is missing"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=WAIT)
    assert "qapla-db [OPTIONS] COMMAND" in done.stdout
    assert "make_migrations" in done.stdout


def test_completion(tmp_path: Path) -> None:
    """The shell can complete the commands."""
    environ = {
        "_QAPLA_DB_COMPLETE": "complete_bash",
        "COMP_WORDS": "qapla-db up",
        "COMP_CWORD": "1",
    }
    assert ["upgrade"] == run("-m", "qapla_db", cwd=tmp_path, **environ).stdout.split()


def test_wrong_usage(files: Files) -> None:
    """An unknown command or option is exit code 2."""
    assert "No such command" in files.cli("upgarde", code=2).stderr
    assert "No such option" in files.cli("upgrade", "--nope", code=2).stderr
    assert "upgrade" in files.cli("--help").stdout


INTERRUPTED = """
    import pathlib, sys
    from qapla_db import DatabaseApplication
    pathlib.Path("started").touch()
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_interrupted(files: Files) -> None:
    """Ctrl-C ends the command with exit code 130 and without a traceback."""
    files.write({"slow.py": INTERRUPTED})
    with subprocess.Popen(
        [*PYTHON, "-m", "qapla_db", "current", "-A", "slow:app"],
        cwd=files.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until((files.root / "started").exists, "the module is imported", WAIT)
            process.send_signal(signal.SIGINT)
            # not communicate(), which would end the input too
            process.wait(WAIT)
            assert process.stderr is not None
            stderr = process.stderr.read()
        finally:
            process.kill()
    assert 130 == process.returncode
    assert "Traceback" not in stderr


APPLICATION = """
    from qapla_db import Database, DatabaseApplication

    class Shop(DatabaseApplication):
        settings_package = "shop_settings"

        def append_app_plugins(self):
            self.add_database_app([Database(name, "migrations_" + name) for name in ("main", "b")])

    app = Shop()
"""
SETTINGS = """
    def make_settings(settings, paths):
        for name in ("main", "b"):
            settings[f"db:{name}:url"] = f"sqlite:///{name}.sqlite3"
            paths.set(f"migrations_{name}", f"migrations/{name}", "project_root")
"""


@pytest.fixture
def two(files: Files) -> Cli:
    """A project with two databases and no migrations."""
    files.write(
        {
            "shop.py": APPLICATION,
            "shop_settings/__init__.py": "",
            "shop_settings/default.py": SETTINGS,
            "pyproject.toml": '[tool.qapla_db]\napp = "shop:app"\n',
        }
    )
    return files.cli


words = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=5)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(first=st.sampled_from(sorted(COMMANDS)), rest=words)
def test_any_arguments(two: Cli, first: str, rest: list[str]) -> None:
    """No arguments whatever end in a traceback or in an exit code of their own."""
    with contextlib.chdir(two.root):
        result: Any = CliRunner().invoke(app, [first, *rest])
    assert result.exit_code in (0, 1, 2, 3), result
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output


def test_names(two: Cli) -> None:
    """With several databases one is named, or --all; a name that is none gets the list."""
    assert "Name one or more of main, b, or use --all" in two.error("create", code=2)
    assert "no database is named 'nope'; there are: main, b" in two.error("create", "nope", code=2)
    assert "not both" in two.error("create", "b", "--all", code=2)
    assert ["b: created", "main: created"] == [
        line.partition(" sqlite")[0] for line in two("create", "b", "main").stdout.splitlines()
    ]
    assert "" == two("create", "--all").stdout


def test_names_and_revision(two: Cli) -> None:
    """A word that is no database is a revision, and only where databases are named."""
    assert "'mian' is no name of a database; name one or more of main, b" in two.error(
        "upgrade", "mian", code=2
    )
    assert "one revision at most" in two.error("upgrade", "main", "x", "y", code=2)
    assert "which revision?" in two.error("downgrade", "main", code=2)
    assert "the revision is empty" in two.error("upgrade", "main", "", code=2)


@pytest.mark.skipif(sys.platform == "win32", reason="no sh")
@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [("<&-", ["drop", "main"], 3), (">&-", ["history", "main"], 0), (">&-", ["drop", "main"], 3)],
)
def test_closed_streams(two: Cli, closed: str, arguments: list[str], code: int) -> None:
    """A process that got its input or output closed has no terminal, and works."""
    (two.root / "migrations/main/versions").mkdir(parents=True)
    two("create", "main")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *PYTHON, "-m", "qapla_db", *arguments],
        cwd=two.root,
        stderr=subprocess.PIPE,
        text=True,
        timeout=WAIT,
    )
    assert code == done.returncode, done.stderr
    assert "AttributeError" not in done.stderr
    assert ("there is no terminal" in done.stderr) == (code == 3)
