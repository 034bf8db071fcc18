"""What isolation costs a test, and what it hides, against what others isolate tests with.

Each way is a project in ``benchmarks/isolation`` whose tests a pytest of its own runs, on the same
PostgreSQL with 30 tables: in memory where there is room, and without fsync.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from benchmarks.isolation.shared.scenarios import ALL
from qapla_db.backends import embedded_server
from tests import servers

TESTS = 300
ROUNDS = 5
STARTS = 11

PROJECTS = Path(__file__).parent / "isolation"


@dataclass(frozen=True)
class Way:
    """A way to isolate tests.

    :ivar parts: directories whose files make its project, the later ones win.
    :ivar plugins: of pytest, which loads no others.
    :ivar base: the way without isolation that it is compared with.
    :ivar needs: the package that has to be installed, as pip and as Python name it.
    """

    title: str
    parts: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    base: str = "none"
    needs: tuple[str, str] | None = None
    rounds: int = ROUNDS

    @property
    def is_installed(self) -> bool:
        return self.needs is None or find_spec(self.needs[1]) is not None


def _django(title: str, part: str) -> Way:
    return Way(
        title,
        ("shared", "django", part),
        ("pytest_django.plugin",),
        base="django",
        needs=("pytest-django Django", "pytest_django"),
    )


_OURS = ("qapla_db.testing.plugin",)

WAYS = {
    "none": Way("no isolation", ("shared", "qapla", "none"), _OURS),
    "sandbox": Way("qapla_db, sandbox", ("shared", "qapla", "sandbox"), _OURS),
    "paired": Way("every other one", ("shared", "qapla", "paired"), _OURS),
    "real_commit": Way("qapla_db, real_commit", ("shared", "qapla", "real_commit"), _OURS),
    "recipe": Way("SQLAlchemy's recipe", ("shared", "recipe")),
    "pytest-postgresql": Way(
        "pytest-postgresql",
        ("shared", "pytest_postgresql"),
        ("pytest_postgresql.plugin",),
        needs=("pytest-postgresql", "pytest_postgresql"),
        rounds=1,
    ),
    "django": _django("Django, no isolation", "django_none"),
    "pytest-django": _django("pytest-django, TestCase", "pytest_django"),
}

LOSING = ("reader", "rollback", "thread", "begin", "autocommit", "ddl")
"""Scenarios that fail where committed rows are not seen."""


@dataclass(frozen=True)
class Measured:
    """What a run of pytest took.

    :ivar seconds: of each test, with setup and teardown.
    :ivar failed: the names of tests.
    :ivar run: seconds of the process.
    """

    seconds: list[float]
    failed: list[str]
    run: float


class Projects:
    """The projects of the ways in one directory, with a database each on one server."""

    def __init__(self, directory: Path, server: sa.URL) -> None:
        self._directory = directory
        self._server = server

    def make(self, name: str) -> Path:
        """Write the project of a way."""
        path = self._directory / name
        for part in WAYS[name].parts:
            shutil.copytree(PROJECTS / part, path, dirs_exist_ok=True)
        (path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
        return path

    def run(self, name: str, *arguments: str, tests: int = TESTS) -> Measured:
        """Run tests of a way; those that fail are no problem."""
        path, way = self._directory / name, WAYS[name]
        url = self._server.set(database=f"planets_test_{name.replace('-', '_')}")
        measured = path / "measured.json"
        measured.unlink(missing_ok=True)
        plugins = [part for plugin in ("measured", *way.plugins) for part in ("-p", plugin)]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, *arguments]
        environment = os.environ | {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "DJANGO_SETTINGS_MODULE": "settings" if "django" in name else "",
            "MEASURED": str(measured),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(path),
            "TESTS": str(tests),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=path, env=environment, capture_output=True, text=True, timeout=900
        )
        run = time.perf_counter() - began
        if done.returncode not in (0, 1) or not measured.exists():
            raise RuntimeError(f"{command}\n{done.stdout}\n{done.stderr}")
        found = json.loads(measured.read_text())
        return Measured(found["seconds"], found["failed"], run)

    def speed(self, name: str) -> Measured:
        """Run the tests that store, commit and count."""
        found = self.run(name, "test_many.py")
        if found.failed:
            raise RuntimeError(f"tests of {name!r} fail: {', '.join(found.failed)}")
        return found


def show_costs(projects: Projects, names: list[str]) -> None:
    """Print what a test costs in each way; the ways take turns."""
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(ROUNDS):
        for name in names if number % 2 else reversed(names):
            if number < WAYS[name].rounds:
                runs[name].append(projects.speed(name))
    print(
        f"{'':24} {'median':>10} {'extra':>10} {f'{TESTS} tests':>10} {'ratio':>6} {'run':>8}   "
        "against"
    )
    for name, found in runs.items():
        base = runs[WAYS[name].base]
        pairs = list(zip(found, base, strict=False))
        extra = statistics.median(_typical(one) - _typical(other) for one, other in pairs)
        ratio = statistics.median(sum(one.seconds) / sum(other.seconds) for one, other in pairs)
        print(
            f"{WAYS[name].title:24} {_median(_typical(one) for one in found) * 1e3:7.2f} ms "
            f"{extra * 1e3:+7.2f} ms {_median(sum(one.seconds) for one in found):8.2f} s "
            f"{ratio:6.2f} {_median(one.run for one in found):6.2f} s   "
            f"{WAYS[WAYS[name].base].title}"
        )
    print("aim of the sandbox: ratio at most 2.5")


def show_sandbox(projects: Projects) -> None:
    """Print what the sandbox costs a test, from runs in which every other test has none."""
    rounds = []
    for _ in range(ROUNDS):
        seconds = projects.speed("paired").seconds[2:]  # the first ones connect
        rounds.append((statistics.median(seconds[::2]), statistics.median(seconds[1::2])))
    print(
        f"in turns in one run: {_median(one for one, _ in rounds) * 1e3:.2f} ms without isolation, "
        f"{_median(one for _, one in rounds) * 1e3:.2f} ms in the sandbox, extra "
        f"{_median(ours - none for none, ours in rounds) * 1e3:+.2f} ms   aim: at most 1"
    )


def _typical(one: Measured) -> float:
    return statistics.median(one.seconds)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def show_truth(projects: Projects, names: list[str]) -> None:
    """Print in which scenarios a test sees something else than production, or is not isolated."""
    failed = {name: projects.run(name, "test_scenarios.py").failed for name in names}
    wide = max(map(len, ALL.values()))
    print(" ".join([" " * wide, *names]))
    for scenario, title in ALL.items():
        cells = []
        for name in names:
            cell = "ok"
            if "django" in name and scenario == "reader":
                cell = "-"  # a thread has one connection
            elif f"test_it[{scenario}]" in failed[name]:
                cell = "loses" if scenario in LOSING else "wrong"
            elif f"test_left[{scenario}]" in failed[name]:
                cell = "stays"
            cells.append(f"{cell:{len(name)}}")
        print(" ".join([f"{title:{wide}}", *cells]))
    print(
        "loses: rows that were committed are not seen; wrong: not as in production; "
        "stays: the next test finds what is left"
    )


def show_starts(projects: Projects) -> None:
    """Print how long a run with one test takes, over one that only imports the application."""
    path = projects.make("sandbox")
    imports = "import planets, tables\n"
    driver = "import sqlalchemy\n\nsqlalchemy.create_engine('postgresql+psycopg://')\n"
    for name, code in (("import", imports), ("driver", imports + driver)):
        (path / f"test_{name}.py").write_text(f"{code}\ndef test_it():\n    pass\n")
    starts = {
        "pytest, application imported": ("--noconftest", "test_import.py"),
        "and its driver": ("--noconftest", "test_driver.py"),
        "one test in a sandbox, warm": ("test_many.py",),
        "one test in a sandbox, cold": ("test_many.py", "--db-rebuild"),
    }
    runs: dict[str, list[float]] = {title: [] for title in starts}
    for _ in range(STARTS):
        for title, arguments in starts.items():
            runs[title].append(projects.run("sandbox", *arguments, tests=1).run)
    base, *_ = runs.values()
    for title, found in runs.items():
        extra = _median(one - other for one, other in zip(found, base, strict=True))
        print(f"{title:28} {_median(found):6.2f} s, extra {extra:+5.2f} s")
    print("aim of a warm start: at most 0.3 s over the application imported")


def main() -> None:
    """Print the tables."""
    if sys.platform == "win32":
        print("left out: there is no embedded PostgreSQL here")
        return
    names = [name for name, way in WAYS.items() if way.is_installed]
    with tempfile.TemporaryDirectory() as directory, servers.directory("postgresql") as home:
        options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        server = embedded_server.start(home / "data", options)
        try:
            projects = Projects(Path(directory), server.url())
            for name in names:
                projects.make(name)
                projects.speed(name)  # compiles, and makes templates
            compared = [name for name in names if name != "paired"]
            show_costs(projects, compared)
            for way in WAYS.values():
                if way.needs and not way.is_installed:
                    print(f"{way.title:24} not installed: pip install {way.needs[0]}")
            show_sandbox(projects)
            print()
            show_truth(projects, compared)
            print()
            show_starts(projects)
        finally:
            embedded_server.stop(home / "data")


if __name__ == "__main__":
    main()
