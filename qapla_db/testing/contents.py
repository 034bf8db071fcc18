"""What a migrated test database depends on: a copy of it is used again as long as that is the same.

It is what the migrations directory holds, the modules of the project that the revisions import,
and the files that they open; versions of the server and of the libraries; how the database is
called. What a revision takes from elsewhere, such as the clock or the environment, cannot be seen.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import qapla_db
from qapla_db.database import Database
from qapla_db.testing.places import is_library

__all__ = ["are_unchanged", "content_of", "files_read"]

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(?P<module>\.*[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|.*)"
    rb"|import[ \t]+(?P<modules>.*))",
    re.MULTILINE,
)
_NAME = re.compile(rb"[\w.]+")


def content_of(databases: Iterable[Database], *server: str) -> str:
    """Return a digest of all that decides what migrations make of an empty database.

    :param databases: names of one database, in the order in which they are migrated.
    :param server: what tells one server's version from another's.
    """
    found = hashlib.sha256()

    def add(*parts: str | bytes) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            found.update(b"%d:%s," % (len(data), data))

    add(qapla_db.__version__, sa.__version__, version("alembic"), *server)
    for database in databases:
        settings = database.settings
        add(settings.name, settings.environment, settings.url.drivername)
        directory = Path(database.migrations_path).absolute()
        texts = {path: path.read_bytes() for path in _files(directory)}
        for path, text in texts.items():
            add(str(path.relative_to(directory)), text)
        for module, text in sorted(_imported(directory, texts).items()):
            add(module, text)
    return found.hexdigest()


def _files(directory: Path) -> list[Path]:
    return sorted(
        Path(where, name)
        for where, _, names in os.walk(directory, followlinks=True)
        if not where.endswith("__pycache__")
        for name in names
        if not name.endswith((".pyc", ".pyo", "~", ".swp"))
    )


# --- modules


def _imported(directory: Path, texts: Mapping[Path, bytes]) -> dict[str, bytes]:
    """Return the modules of the project that revisions import, and those that these import.

    What ``env.py`` itself imports is left out: it is the application, which changes all the
    time and of which migrations use nothing but the address of the database.
    """
    waiting = [
        name
        for path, text in texts.items()
        if path.suffix == ".py" and path != directory / "env.py"
        for name in _names(text, "")
    ]
    seen: set[str] = set()
    found: dict[str, bytes] = {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])
        path, package = _file_of(name)
        if path and path not in found and not is_library(path):
            with suppress(OSError):
                found[path] = Path(path).read_bytes()
                waiting += _names(found[path], package)
    return found


def _names(text: bytes, package: str) -> Iterator[str]:
    """Yield what a module may import: of ``from a import b`` both ``a`` and ``a.b``."""
    for match in _IMPORT.finditer(text):
        if match["modules"]:
            yield from (name.decode() for name in _NAME.findall(match["modules"]))
            continue
        module = match["module"].decode()
        dots = len(module) - len(module.lstrip("."))
        if dots:
            parents = package.split(".")
            module = ".".join([*parents[: len(parents) - dots + 1], module[dots:]]).strip(".")
        yield module
        yield from (f"{module}.{name.decode()}" for name in _NAME.findall(match["names"]))


def _file_of(name: str) -> tuple[str | None, str]:
    """Return the file of a module and the package that its relative imports start from."""
    top, _, rest = name.partition(".")
    if not top or top in sys.stdlib_module_names:
        return None, ""
    loaded = sys.modules.get(name)
    if loaded is not None:
        is_package = hasattr(loaded, "__path__")
        file = getattr(loaded, "__file__", None)
        return file, name if is_package else name.rpartition(".")[0]
    # without importing anything, which is for the revision to do
    spec, known = PathFinder.find_spec(top), top
    while spec is not None and rest and spec.submodule_search_locations:
        part, _, rest = rest.partition(".")
        known = f"{known}.{part}"
        spec = PathFinder.find_spec(known, list(spec.submodule_search_locations))
    if spec is None or rest or not spec.has_location:
        return None, ""
    return spec.origin, name if spec.submodule_search_locations else name.rpartition(".")[0]


# --- other files


@contextmanager
def files_read() -> Iterator[dict[str, str]]:
    """Note which files a block reads; afterwards they are there, with digests of them.

    Libraries and what Python itself reads are left out, and so are files that are gone.
    """
    opened: set[str] = set()
    found: dict[str, str] = {}
    _watch_files()
    me = threading.get_ident()
    _readers[me] = opened
    try:
        yield found
    finally:
        del _readers[me]
        for path in opened:
            digest = None if is_library(path) else _digest(path)
            if digest is not None:
                found[path] = digest


def are_unchanged(files: Mapping[str, str]) -> bool:
    """Tell whether files are what they were."""
    return all(_digest(path) == digest for path, digest in files.items())


def _digest(path: str) -> str | None:
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


_readers: dict[int, set[str]] = {}


@cache
def _watch_files() -> None:
    # there is no way to take it away again, see PEP 578
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _readers:
        return
    opened = _readers.get(threading.get_ident())
    if opened is None:
        return
    path, mode, flags = arguments
    is_read = not (flags or 0) & (os.O_WRONLY | os.O_RDWR) if mode is None else mode[:1] == "r"
    if is_read and isinstance(path, (str, bytes, os.PathLike)):
        name = os.fsdecode(path)
        if not name.endswith((".pyc", ".py")) and not name.startswith(("/proc/", "/sys/", "/dev/")):
            opened.add(os.path.abspath(name))
