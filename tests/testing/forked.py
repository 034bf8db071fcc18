"""Runs of pytest in processes that have loaded the libraries already.

They are forked from a server that loads them once and has no connection, no thread and no
application; a process for each run from nothing would spend most of its time on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

__all__ = ["SECONDS", "environment", "run_project", "run_pytest"]

SECONDS = 120.0
"""Longest time that a run of a project may take."""

_LIBRARIES = [
    *("pytest", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.mysql"),
    *("psycopg", "pymysql", "alembic.command", "alembic.context", "morfdict"),
    *("pyramid.config", "celery", "webtest"),
    # not the plugin itself: pytest wants to be the first to import it
    *("qapla_db.testing.fixture", "qapla_db.testing.functions", "qapla_db.testing.databases"),
    *("qapla_db.migrations.commands", "qapla_db.env", "qapla_db.decorators"),
    *("qapla_db.backends.postgresql", "qapla_db.backends.mysql", "qapla_db.backends.sqlite"),
]

_ABOUT_PYTEST = {"CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "COLUMNS", "FORCE_COLOR", "PY_COLORS"}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LIBRARIES)


def environment() -> dict[str, str]:
    """This process's variables without those that change what pytest loads or prints."""
    kept = {name: text for name, text in os.environ.items() if name not in _ABOUT_PYTEST}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_pytest(
    arguments: Sequence[str],
    directory: Path,
    variables: Mapping[str, str],
    output: Path,
    seconds: float = SECONDS,
) -> int | None:
    """Run pytest in a directory and return its exit code; negative where a signal ended it.

    :param variables: the environment, all of it.
    :param output: the file that gets what it prints.
    :param seconds: after which it is killed, and None is returned.
    """
    process = _context.Process(
        target=_run, args=(list(arguments), str(directory), dict(variables), str(output))
    )
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def run_project(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in the directory of a pytester, with our plugin and few others."""
    ours = ["-p", "qapla_db.testing.plugin", *["-p", "xdist"] * ("-n" in arguments)]
    ours += ["-p", "pytest_randomly"] * ("--randomly-seed" in arguments)
    output = project.path / "output.txt"
    code = run_pytest([*ours, *arguments], project.path, environment(), output)
    assert code is not None, f"pytest did not end within {SECONDS:g} s"
    lines = output.read_text().splitlines()
    return pytest.RunResult(code, lines, lines, 0)


def _run(arguments: list[str], directory: str, variables: dict[str, str], output: str) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(variables)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.path.insert(0, directory)
    code = int(pytest.main(arguments))
    sys.stdout.flush()
    os._exit(code)
