"""Pyramid's own programs on an application object: pserve, pshell, prequest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyramid.scripting import prepare

from qapla_db.errors import ConfigurationError
from qapla_db.web.pyramid import setup_pshell
from tests.web.conftest import MakeSite
from tests.web.site import NOTHING_OUT, Note, ok, views

SECONDS = 60
PROGRAM = """
from pyramid.response import Response
from sqlalchemy import text

from qapla_db import Database, DatabaseApplication


class Shop(DatabaseApplication):
    settings_package = "shop_settings"

    def append_app_plugins(self):
        self.add_database_app([Database("main")])

    def append_web_plugins(self):
        self.add_database_web()
        self.config.add_route("home", "/")
        self.config.add_view(home, route_name="home")


def home(request):
    title = request.registry.settings["shop.title"]
    return Response(f"{title} {request.main.scalar(text('SELECT 40 + 2'))} {main.endpoint}")


main = Shop()
"""
INI = """
[app:main]
use = call:shop:main
db.main.url = sqlite:///%(here)s/shop.sqlite3
db.main.options.pool_size = 2
shop.title = Kronos

[server:main]
use = egg:waitress#main
listen = 127.0.0.1:0

[pshell]
setup = qapla_db.web.pyramid:setup_pshell

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(message)s
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with an application and its .ini file."""
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "shop_settings").mkdir()
    (tmp_path / "shop_settings" / "__init__.py").touch()
    (tmp_path / "shop_settings" / "default.py").write_text("def make_settings(s, p): pass\n")
    (tmp_path / "shop.ini").write_text(INI)
    return tmp_path


def _command(script: str, *arguments: str) -> list[str]:
    # by module, so that it is the Pyramid of this interpreter
    code = f"import sys; from pyramid.scripts.{script} import main; sys.exit(main() or 0)"
    return [sys.executable, "-c", code, "shop.ini", *arguments]


def _options(shop: Path) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(shop), str(root)])}
    return {"cwd": shop, "env": environ, "text": True}


def test_prequest(shop: Path) -> None:
    """prequest answers a request from the command line."""
    done = subprocess.run(
        _command("prequest", "/"), capture_output=True, timeout=SECONDS, **_options(shop)
    )
    assert "Kronos 42 wsgi" == done.stdout.strip(), done.stderr


def test_pshell(shop: Path) -> None:
    """pshell is prepared for the shell, and has the session and the databases by name."""
    lines = (
        "from sqlalchemy import text",
        "print('answer', main.scalar(text('SELECT 40 + 2')), main is request.main)",
        "print('prepared', dbs['main'].host.endpoint, dbs['main'].engine.pool.size())",
    )
    done = subprocess.run(
        _command("pshell", "-p", "python"),
        input="\n".join(lines) + "\n",
        capture_output=True,
        timeout=SECONDS,
        **_options(shop),
    )
    assert "answer 42 True" in done.stdout, done.stderr
    assert "prepared shell 2" in done.stdout
    assert re.search(r"^  dbs ", done.stderr, re.MULTILINE), done.stderr


@pytest.fixture
def serving(shop: Path) -> Iterator[str]:
    """The address of the application under pserve."""
    process = subprocess.Popen(
        _command("pserve"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_options(shop)
    )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, "")
        seen: list[str] = []
        for line in lines:
            seen.append(line)
            found = re.search(r"http://[\d.]+:\d+", line)
            if found:
                yield found[0]
                break
        else:
            pytest.fail(f"pserve ended: {''.join(seen)}")
    finally:
        process.terminate()
        process.wait(SECONDS)
        process.stdout.close()


def test_pserve(serving: str) -> None:
    """pserve serves the application on the port of its .ini file."""
    with urllib.request.urlopen(f"{serving}/", timeout=SECONDS) as answer:
        assert b"Kronos 42 wsgi" == answer.read()


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_shell_keeps_the_names_it_has(make_site: MakeSite) -> None:
    """The helper adds a session for each database, overwrites nothing, and the end closes all."""
    site = make_site(views(home=ok))
    with prepare(registry=site.registry()) as env:
        env["audit"] = "mine"
        setup_pshell(env)
        assert "mine" == env["audit"]
        assert env["main"] is env["request"].main
        assert env["dbs"] is site.dbs
        assert env["main"].get(Note, 1) is None
        assert NOTHING_OUT != site.checked_out()
    assert NOTHING_OUT == site.checked_out()


def test_a_shell_without_databases() -> None:
    """Without databases the helper says how an application gets them."""
    with pytest.raises(ConfigurationError, match=r"add_database_web\(\)"):
        setup_pshell({"registry": {}})
