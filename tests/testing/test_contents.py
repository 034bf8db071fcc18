"""What a template depends on is known: files, modules, settings."""

from __future__ import annotations

import glob
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import platform
import runpy
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db.database import Database
from qapla_db.testing.contents import are_unchanged, content_of, files_read, is_current
from tests.support import make_application
from tests.testing.projects import REVISION, Project, make_project

TESTS = """
class TestShips(ShipFixture):
    def test_seed(self):
        assert SEED == names()[:2]
        assert {last!r} == names()[-1]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of a project, from which Python imports."""
    write(tmp_path / "migrations/env.py", "import application\n")
    write(tmp_path / "migrations/versions/0001.py", "import sqlalchemy\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def database(root: Path) -> Iterator[Database]:
    """The database of the project."""
    with application_in(root) as application:
        yield application.dbs["main"]


def application_in(root: Path, url: Any = "sqlite:///main.sqlite3", **settings: Any) -> Any:
    values = {f"db:main:{key}": value for key, value in settings.items()}
    paths = {"project_root": str(root), "migrations_main": str(root / "migrations")}
    return make_application({"main": url}, settings=values, paths=paths)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- checkouts


def test_a_checkout_compares_its_own_files(tmp_path: Path) -> None:
    """Two checkouts of one project share a template only where the files of both are the same."""
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        write(root / "migrations/versions/0001.py", "import ours_of_checkouts.names\n")
        write(root / "ours_of_checkouts/names.py", "NAME = 'Hegh'\n")
        write(root / "seed.txt", "Hegh")
    contents, found = [], []
    for root in roots:
        with application_in(root) as application, pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(root)
            databases = [application.dbs["main"]]
            contents.append(content_of(databases))
            with files_read(databases) as files:
                (root / "seed.txt").read_text()
                os.listdir(root)
            write(roots[1] / "seed.txt", "Amar")
            found.append((dict(files), are_unchanged(files, databases)))
    assert contents[0] == contents[1]
    assert ["seed.txt", "."] == list(found[0][0])
    with application_in(roots[1]) as application:
        assert not are_unchanged(found[0][0], [application.dbs["main"]])
    with application_in(roots[0]) as application:
        assert are_unchanged(found[0][0], [application.dbs["main"]])


# --- files that are read


def load(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("ours_loaded", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(30)


def os_open(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR))


def connect(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE IF NOT EXISTS ship (name TEXT)")
    connection.close()


READS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "open": ("ours.txt", lambda root: (root / "ours.txt").read_text()),
    "open for reading and writing": ("ours.txt", lambda root: os_open(root / "ours.txt")),
    "open Python": ("ours.py", lambda root: (root / "ours.py").read_text()),
    "in a thread": ("ours.txt", lambda root: in_thread((root / "ours.txt").read_bytes)),
    "spec_from_file_location": ("ours.py", lambda root: load(root / "ours.py")),
    "runpy": ("ours.py", lambda root: runpy.run_path(str(root / "ours.py"))),
    "import_module": ("ours.py", lambda root: importlib.import_module("ours")),
    "os.listdir": ("seeds/ours.csv", lambda root: os.listdir(root / "seeds")),
    "glob": ("seeds/ours.csv", lambda root: glob.glob("seeds/*.csv")),
    "Path.glob": ("seeds/ours.csv", lambda root: list(root.glob("**/*.csv"))),
    "os.walk": ("seeds/ours.csv", lambda root: list(os.walk(root))),
    "SQLite": ("ours.sqlite3", lambda root: sqlite3.connect(root / "ours.sqlite3").close()),
    "SQLite by a URI": (
        "ours.sqlite3",
        lambda root: sqlite3.connect(f"file:{root}/ours.sqlite3?mode=rw", uri=True).close(),
    ),
}


@pytest.mark.parametrize("how", READS)
def test_what_is_read_counts(how: str, root: Path, database: Database) -> None:
    """A file that migrations read in any way makes a template stale when it changes or goes."""
    name, read = READS[how]
    write(root / name, "")
    with files_read([database]) as files:
        read(root)
    assert files
    assert are_unchanged(files, [database])
    if "seeds" not in name:
        write(root / name, "SHIP = 1\n")
        assert not are_unchanged(files, [database])
    (root / name).unlink()
    assert not are_unchanged(files, [database])


@pytest.mark.parametrize("how", ["os.listdir", "glob", "Path.glob", "os.walk"])
def test_a_new_file_in_a_listed_directory_counts(how: str, root: Path, database: Database) -> None:
    """A directory that migrations list may get no further file; caches and journals are none."""
    write(root / "seeds/ours.csv", "")
    with files_read([database]) as files:
        READS[how][1](root)
    for left in (".cache", "x.pyc", "__pycache__/x.pyc", "main.sqlite3-journal"):
        write(root / "seeds" / left, "")
    assert are_unchanged(files, [database])
    write(root / "seeds/more.csv", "")
    assert not are_unchanged(files, [database])


def test_a_file_that_was_missing_counts(root: Path, database: Database) -> None:
    """A file that is not there when migrations look for it makes a template stale once it is."""
    with files_read([database]) as files:
        with pytest.raises(FileNotFoundError):
            (root / "more.txt").read_text()
        assert [] == glob.glob("more/*.csv")
    assert are_unchanged(files, [database])
    write(root / "more.txt", "")
    assert not are_unchanged(files, [database])
    (root / "more.txt").unlink()
    write(root / "more/ours.csv", "")
    assert not are_unchanged(files, [database])


def test_a_file_counts_as_it_was_read(root: Path, database: Database) -> None:
    """A file that changes while migrations run counts with what they have read."""
    write(root / "ours.txt", "before")
    with files_read([database]) as files:
        (root / "ours.txt").read_text()
        write(root / "ours.txt", "after")
    assert not are_unchanged(files, [database])
    write(root / "ours.txt", "before")
    assert are_unchanged(files, [database])


def test_what_migrations_make_themselves_does_not_count(
    root: Path, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Logs, temporary files and directories, the database and libraries are no input."""
    with files_read([database]) as files:
        with open("migrated.log", "a") as log:
            log.write("main")
        place = root / "temporary"
        place.mkdir()
        write(place / "ours.txt", "").read_text()
        os.listdir(place)
        connect(root / "main.sqlite3")
        write(root / "made.txt", "").read_text()
        Path(sa.__file__).read_text()
        importlib.invalidate_caches()
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("nothing_of_ours")
    shutil.rmtree(place)
    assert {} == files
    assert files.is_complete


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run([sys.executable, "-c", ""], check=True, timeout=60),
        lambda: os.system("true"),
    ],
)
def test_a_process_makes_it_unknown(
    start: Callable[[], object], root: Path, database: Database
) -> None:
    """What a process reads is not known, and that is said."""
    with files_read([database]) as files:
        platform.platform()  # Python may ask programs about the machine
        assert files.is_complete
        start()
    assert not files.is_complete


# --- modules that are imported

IMPORTS = [
    "import ours_deep.ships\n",
    "from ours_deep import \\\n    ships\n",
    "from ours_deep import (  # (c) the Empire\n    ships,\n)\n",
    "from os import path; import ours_deep.ships\n",
    "try: import ours_deep.ships\nexcept ImportError: pass\n",
    "def upgrade():\n    if True:\n        import ours_deep.ships\n",
    "match 1:\n    case 1:\n        import ours_deep.ships\n",
    "import importlib\nimportlib.import_module('ours_deep.ships')\n",
    "x = __import__('ours_deep.ships').SHIP\n",
    "import ours_deep.ships # import\n",
    '"""\nimport the ships\n"""\nimport ours_deep.ships\n',
    "import json\nfrom ours_deep.ships import *\n",
    "from ours_deep.relative import x\n",
]


@pytest.mark.parametrize("text", IMPORTS)
def test_modules_that_revisions_import_count(text: str, root: Path, database: Database) -> None:
    """A module of the project counts in whatever way a revision writes its import."""
    write(root / "migrations/versions/0001.py", text)
    write(root / "ours_deep/__init__.py", "")
    write(root / "ours_deep/relative.py", "def f():\n    from . import ships\n")
    write(root / "ours_deep/ships.py", "SHIP = 1\n")
    before = content_of([database])
    assert before == content_of([database])
    write(root / "ours_deep/ships.py", "SHIP = 2\n")
    assert before != content_of([database])
    assert "ours_deep" not in sys.modules


def test_a_namespace_package_that_is_not_loaded(root: Path, database: Database) -> None:
    """Directories without ``__init__.py`` are packages, too."""
    write(root / "migrations/versions/0001.py", "from ours_space.deep.deeper import x\n")
    write(root / "ours_space/deep/deeper/x.py", "SHIP = 1\n")
    before = content_of([database])
    write(root / "ours_space/deep/deeper/x.py", "SHIP = 2\n")
    assert before != content_of([database])


def test_a_text_that_is_no_python_counts_as_it_is(root: Path, database: Database) -> None:
    """A revision with a syntax error does not keep the tests from saying so."""
    before = content_of([database])
    write(root / "migrations/versions/0001.py", "import (\n")
    assert before != content_of([database])


def test_a_package_of_another_finder(
    root: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package counts that only a finder of its own finds, as those of editable installs do."""
    file = write(root / "src/elsewhere/__init__.py", "")
    module = write(root / "src/elsewhere/ships.py", "SHIP = 1\n")

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(
            self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
        ) -> importlib.machinery.ModuleSpec | None:
            if name != "ours_editable":
                return None
            places = [str(file.parent)]
            return importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=places
            )

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    write(root / "migrations/versions/0001.py", "import ours_editable.ships\n")
    for is_loaded in (False, True):
        if is_loaded:
            importlib.import_module("ours_editable")
        before = content_of([database])
        write(module, f"SHIP = {is_loaded}\n")
        assert before != content_of([database])


def test_data_beside_modules_count(root: Path, database: Database) -> None:
    """Data of a package, which was read when it was imported, counts; other data does not."""
    write(root / "migrations/versions/0001.py", "import ours_data.ships, ours_single\n")
    write(root / "ours_data/ships.py", "")
    write(root / "ours_single.py", "")
    contents = [content_of([database])]
    for name in ("ours_data/ships.csv", "output.txt", "ours_data/picture.png"):
        write(root / name, "x")
        contents.append(content_of([database]))
    assert contents[0] != contents[1] == contents[2] == contents[3]


def test_what_env_imports_does_not_count(root: Path, database: Database) -> None:
    """The application, which ``env.py`` imports, changes all the time and is left out."""
    write(root / "application.py", "import ours_of_application\n")
    write(root / "ours_of_application.py", "import importlib\n")
    before = content_of([database])
    with files_read([database]) as files:
        load(root / "migrations/env.py")
    assert {} == files
    write(root / "application.py", "SHIP = 2\n")
    assert before == content_of([database])


def test_edits_while_migrations_run_are_seen(root: Path, database: Database) -> None:
    """A digest is current until something that went into it changes, in this process."""
    write(root / "migrations/versions/0001.py", "import ours_edited\n")
    write(root / "ours_edited.py", "SHIP = 1\n")
    for change in ("ours_edited.py", "migrations/versions/0001.py", "migrations/new.sql"):
        content = content_of([database])
        importlib.import_module("ours_edited")
        assert is_current(content)
        write(root / change, "SHIP = 2\n")
        assert not is_current(content)


# --- settings


def test_settings_of_the_database_count(root: Path) -> None:
    """Options, session keywords and the URL's query count; passwords and addresses of objects
    do not."""

    def content(url: str = "sqlite:///main.sqlite3", **settings: Any) -> str:
        with application_in(root, url, **settings) as application:
            return content_of([application.dbs["main"]])

    contents = [
        content(),
        content("sqlite:///main.sqlite3?timeout=7"),
        content(options={"connect_args": {"timeout": 5}}),
        content(options={"connect_args": {"timeout": 6}}),
        content(options={"poolclass": sa.NullPool}),
        content(options={"poolclass": sa.StaticPool}),
        content(options={"execution_options": {"ships": [1, None, "x", True]}}),
        content(session={"expire_on_commit": False}),
    ]
    assert len(contents) == len(set(contents))
    secrets = [content(options={"connect_args": {"password": one}}) for one in "ab"]
    objects = [content(options={"creator": one}) for one in (lambda: 1, lambda: 2)]
    assert 1 == len(set(secrets)) == len(set(objects))
    for url in ["embedded:///d?database={}", "postgresql://u@h/{}?connect_timeout=3"]:
        workers = [content(url.format(name)) for name in ("s_test", "s_test_gw0", "s_test_2")]
        assert 1 == len(set(workers)), "the database of a worker has a template of its own"


# --- whole runs


@pytest.fixture
def sqlite_project(tmp_path: Path) -> Project:
    """A project on SQLite."""
    urls = {
        name: sa.URL.create("sqlite", database=str(tmp_path / f"fresh_test_{name}.sqlite3"))
        for name in ("main", "audit")
    }
    return make_project(tmp_path, urls)


SECOND = """
import glob
import os
import subprocess
from alembic import op
from acme.deep.ships import NAME

revision, down_revision = "0002", "0001"

def upgrade():
    names = [NAME, *sorted(glob.glob("seeds/*.csv"))]
    if os.path.exists("process"):
        names.append(subprocess.check_output(["cat", "process"], text=True))
    for name in names:
        op.execute(f"INSERT INTO ship (name) VALUES ('{name}')")

def downgrade():
    pass
"""


def test_runs_of_a_project(sqlite_project: Project) -> None:
    """A namespace package, a globbed directory and a process in a revision never make it stale."""
    project = sqlite_project
    project.write("migrations/main/versions/0002_more.py", SECOND)
    project.write("acme/deep/ships.py", "NAME = 'Hegh'\n")
    project.run(TESTS.format(last="Hegh"))
    project.run()
    assert 1 == project.migrated.count("main")
    project.write("seeds/new.csv", "")
    project.run(TESTS.format(last="seeds/new.csv"))
    assert 2 == project.migrated.count("main")
    project.write("acme/deep/ships.py", "NAME = 'Amar'\n")
    for count, name in enumerate(["Ves", "Toh"], start=3):
        project.write("process", name)
        project.run(TESTS.format(last=name))
        assert count == project.migrated.count("main")
    assert 1 == project.migrated.count("audit")


def test_an_edit_while_migrations_run(sqlite_project: Project) -> None:
    """A template is not kept where a revision was edited before its database was finished."""
    project = sqlite_project
    path = project.path / "migrations/main/versions/0001_ships.py"
    text = REVISION.format(database="main")
    edit = "import pathlib; pathlib.Path(__file__).write_text({!r})\n"
    path.write_text(text + edit.format(text.replace("Bortas", "Amar")))
    project.run(TESTS.format(last="Bortas"))
    path.write_text(text + edit.format(text.replace("Bortas", "Amar")))
    project.run()
    assert 2 == project.migrated.count("main")
    project.run(TESTS.replace("SEED", "['Rotarran', 'Amar']").format(last="Amar"))
    assert 3 == project.migrated.count("main")
