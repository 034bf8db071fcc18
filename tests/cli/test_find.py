"""How the command line finds the application."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qapla_db.cli.main import app
from tests.cli.conftest import Cli, Files

SHOP = """
    from qapla_db import Database, DatabaseApplication

    class Shop(DatabaseApplication):
        settings_package = "shop.settings"

        def append_app_plugins(self):
            self.add_database_app([Database("main", "migrations")])

    app = Shop()

    def make():
        return Shop()

    def make_with(name):
        return Shop()

    def make_nothing():
        return None

    def make_none():
        raise LookupError("out of shops")

    def make_an_end():
        raise SystemExit(0)

    number = 42
"""

SETTINGS = """
    def make_settings(settings, paths):
        settings["db:main:url"] = "sqlite:///shop.sqlite3"
"""

SHOP_FILES = {
    "shop/__init__.py": "",
    "shop/app.py": SHOP,
    "shop/settings/__init__.py": "",
    "shop/settings/default.py": SETTINGS,
}


@pytest.fixture
def shop(files: Files) -> Cli:
    """A project with the package ``shop``; nothing names its application."""
    files.write(SHOP_FILES)
    return files.cli


@pytest.mark.parametrize("name", ["app", "Shop", "make"])
def test_option(shop: Cli, name: str) -> None:
    """-A names an application, its class or a function that makes it, before or behind."""
    assert "main: created sqlite" in shop("create", "-A", f"shop.app:{name}").stdout
    assert "" == shop("-A", f"shop.app:{name}", "create").stdout


def test_environment(shop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """QAPLA_APP names it; -A wins over it."""
    monkeypatch.setenv("QAPLA_APP", "shop.app:app")
    shop("create", "main")
    assert "'nope'" in shop.error("create", "-A", "nope:app", code=2)


def test_pyproject(shop: Cli) -> None:
    """pyproject.toml names it, for directories below too; its directory is on the path."""
    text = '[tool.qapla_db]\napp = "shop.app:app"\n'
    (shop.root / "pyproject.toml").write_text(text)
    below = shop.root / "docs" / "more"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text("[project]\nname = 'more'\n")
    assert "main: created" in Cli(below)("create").stdout


def test_environment_wins_over_pyproject(shop: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell says counts more than a file."""
    (shop.root / "pyproject.toml").write_text('[tool.qapla_db]\napp = "nope:app"\n')
    monkeypatch.setenv("QAPLA_APP", "shop.app:app")
    shop("create")


@pytest.mark.parametrize(
    "text, said",
    [
        ("[tool.qapla_db", "pyproject.toml cannot be read"),
        ("[tool.qapla_db]\nname = 1", 'write app = "module:attribute"'),
        ("[tool.qapla_db]\napp = 1", 'write app = "module:attribute"'),
        ("[tool]\nqapla_db = 1", 'write app = "module:attribute"'),
    ],
)
def test_bad_pyproject(shop: Cli, text: str, said: str) -> None:
    """A pyproject.toml that does not name an application is told from one that has no say."""
    (shop.root / "pyproject.toml").write_text(text)
    assert said in shop.error("create", code=2)


def test_nothing(files: Files) -> None:
    """Where nothing names an application all ways to do so are listed."""
    line = files.cli.error("current", code=2)
    for way in ("-A", "QAPLA_APP", "[tool.qapla_db]", "--settings_path"):
        assert way in line


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "write module:attribute"),
        ("shop/app.py", "write module:attribute"),
        (".app:app", "write module:attribute"),
        ("shop.app:", "write module:attribute"),
        ("shop.app:a b", "write module:attribute"),
        ("shop.app", "write shop.app:app"),
        ("shop.app:aap", "has no 'aap'; write shop.app:app"),
        ("shop.app:number", "is no application but of the type int"),
        ("shop.app:make_nothing", "is no application but of the type function"),
        ("shop.app:make_with", "cannot be called without arguments"),
        ("shop.nope:app", "there is no 'shop.nope'"),
        ("shop.app.nope:app", "there is no 'shop.app.nope'"),
        ("shop:nope", "has no 'nope'; write shop:attribute"),
    ],
)
def test_wrong(shop: Cli, text: str, said: str) -> None:
    """Everything that is no application is told in one line."""
    assert said in shop.error("current", "-A", text, code=2)


@pytest.mark.parametrize(
    "body, said",
    [
        ("import nope_nope", "ModuleNotFoundError: No module named 'nope_nope'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = (", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
)
def test_module_that_fails(files: Files, body: str, said: str) -> None:
    """A module that cannot be imported says what is wrong and where."""
    files.write({"broken.py": body})
    line = files.cli.error("current", "-A", "broken:app")
    assert said in line
    assert "broken.py" in line


@pytest.mark.parametrize(
    ("factory", "said"),
    [("make_none", "LookupError: out of shops"), ("make_an_end", "SystemExit: 0")],
)
def test_factory_that_fails(shop: Cli, factory: str, said: str) -> None:
    """A function that makes the application and fails is named, with the line."""
    line = shop.error("current", "-A", f"shop.app:{factory}")
    assert f"calling 'shop.app:{factory}' (-A) failed: {said}" in line
    assert "app.py, line" in line


def test_settings_that_end_the_program(shop: Cli) -> None:
    """Settings that end the program with code 0 are no success of the command."""
    settings = shop.root / "shop/settings/default.py"
    settings.write_text("def make_settings(settings, paths): raise SystemExit(0)")
    line = shop.error("create", "-A", "shop.app:app")
    assert "the project's code ends the program (SystemExit: 0)" in line
    assert "default.py, line 1" in line


@pytest.mark.skipif(sys.platform == "win32", reason="no directory that is in use is deleted")
def test_deleted_directory(tmp_path: Path) -> None:
    """In a directory that was deleted meanwhile the command says so."""
    here = tmp_path / "gone"
    here.mkdir()
    with contextlib.chdir(here):
        here.rmdir()
        result = CliRunner().invoke(app, ["status"], prog_name="qapla-db")
        os.chdir(tmp_path)
    assert 2 == result.exit_code
    assert "error: the working directory was deleted" in result.stderr


def test_prepared_for_another(files: Files) -> None:
    """An application that its module prepares for the web is not taken."""
    files.write({**SHOP_FILES, "serving.py": "from shop.app import app; app.run_shell()"})
    assert "the application for 'shell'" in files.cli.error("create", "-A", "serving:app")


def test_without_databases(files: Files) -> None:
    """An application that registers no databases is told how to."""
    files.write(
        {
            "shop/settings/__init__.py": "",
            "shop/settings/default.py": "def make_settings(settings, paths): pass",
            "empty.py": """
            from qapla_db import DatabaseApplication

            class Empty(DatabaseApplication):
                settings_package = "shop.settings"
                def append_app_plugins(self):
                    self.add_database_app([])
            """,
        }
    )
    assert "has no databases" in files.cli.error("current", "-A", "empty:Empty", code=2)


def test_tests(files: Files) -> None:
    """With --tests the application is prepared for tests."""
    tests = SETTINGS.replace("shop.sqlite3", "shop_test.sqlite3")
    files.write({**SHOP_FILES, "shop/settings/tests.py": tests})
    assert "shop_test.sqlite3" in files.cli("create", "-A", "shop.app:Shop", "--tests").stdout


def test_debug(shop: Cli) -> None:
    """--debug shows the traceback, at either place."""
    for arguments in (["--debug", "current"], ["current", "--debug"]):
        with contextlib.chdir(shop.root):
            result = CliRunner().invoke(app, [*arguments, "-A", "shop.app:make_none"])
        assert 3 == result.exit_code
        assert "Traceback" in result.stderr
        assert "LookupError: out of shops" in result.stderr


# --- settings.py with DB_CONFIG

CONFIG = """
    DB_CONFIG = {"SQL": {"ENGINE": "sqlite", "DB_NAME": "stars.sqlite3", "MODELS": "stars:Base"}}
"""


@pytest.mark.parametrize("option", ["--settings_path", "--settings-path"])
def test_settings_path(files: Files, tmp_path: Path, option: str) -> None:
    """A directory with a settings.py does without an application; the database is main."""
    files.write({"settings.py": CONFIG})
    elsewhere = Cli(tmp_path)
    assert "main: created sqlite" in elsewhere("create", option, "project").stdout
    assert (tmp_path / "stars.sqlite3").exists()


def test_settings_here(files: Files) -> None:
    """A settings.py in the working directory needs no option at all."""
    files.write({"settings.py": CONFIG})
    assert "main: created sqlite" in files.cli("create").stdout


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "has no settings.py"),
        ("x = 1", 'has no DB_CONFIG with "SQL"'),
        ("DB_CONFIG = 1", 'has no DB_CONFIG with "SQL"'),
        ("DB_CONFIG = {}", 'has no DB_CONFIG with "SQL"'),
        ("DB_CONFIG = {'SQL': {}}", "'db:main:url'"),
        ("DB_CONFIG = {'SQL': {'ENGINE': 'sqlite', 'NAME': 'x'}}", "unknown keys NAME"),
        ("DB_CONFIG = {'SQL': {'ENGINE': 'sqlite', 'MODELS': 1}}", "MODELS"),
        ("1 / 0", "ZeroDivisionError"),
        ("(", "SyntaxError"),
    ],
)
def test_wrong_settings(files: Files, text: str | None, said: str) -> None:
    """Everything that can be wrong with a settings.py is told in one line."""
    if text is not None:
        files.write({"settings.py": text})
    assert said in files.cli.error("create", "--settings_path", ".")


def test_settings_and_application(files: Files) -> None:
    """-A and --settings_path exclude each other."""
    assert "use one" in files.cli.error("current", "-A", "a:b", "--settings_path", ".", code=2)
