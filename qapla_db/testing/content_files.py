"""The files that migrations read while they run."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import local
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

from qapla_db.database import Database
from qapla_db.testing.content_modules import is_foreign

__all__ = ["LEFT_OUT", "FilesRead", "are_unchanged", "files_read", "recorded", "root_of"]

LEFT_OUT = (".pyc", ".pyo", "~", ".swp")
"""How the names of files end that Python and editors leave."""

_ABSENT, _OTHER = "absent", "no file"
_NOT_LISTED = (*LEFT_OUT, "__pycache__", "-journal", "-wal", "-shm")
_JOURNAL = re.compile("-(journal|wal|shm)$")
_PROCESSES = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"),
    *("os.fork", "os.forkpty", "os.startfile"),
}
_ABOUT_MACHINE = tuple(
    str(Path(os.__file__).parent / one) for one in ("platform.py", "uuid.py", "ctypes/util.py")
)
_OURS = str(Path(__file__).parents[1]) + os.sep


class FilesRead(dict[str, str]):
    """Files and directories that were read, with what tells whether they are still the same.

    Those below the root of the project are named from there, so that another checkout compares
    its own.

    :ivar is_complete: nothing was read that cannot be known, as by a process that was started.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_complete = True


def root_of(databases: Sequence[Database]) -> str:
    """Return the root directory of the project that has these databases."""
    if databases:
        with suppress(KeyError):
            return os.path.abspath(str(databases[0].host.paths.get("project_root")))
    return os.getcwd()


def recorded(path: str, root: str) -> str:
    """Return an absolute path from the root of the project, if it is below."""
    for start in {root, os.path.realpath(root)}:
        if f"{path}{os.sep}".startswith(start.rstrip(os.sep) + os.sep):
            return Path(os.path.relpath(path, start)).as_posix()
    return path


@contextmanager
def files_read(databases: Sequence[Database] = ()) -> Iterator[FilesRead]:
    """Note what this process reads in a block, each file as it is when first opened.

    Left out are libraries; the migrations directories, which count as a whole; what ``env.py``
    imports; the databases themselves; and what the block itself has made before.

    :param databases: the names of the one that is migrated.
    """
    noted = _Noted(databases)
    _watch()
    _listening.append(noted)
    try:
        yield noted.found
    finally:
        _listening.remove(noted)


def are_unchanged(files: Mapping[str, str], databases: Sequence[Database] = ()) -> bool:
    """Tell whether files are what they were, those of the project in the checkout that asks.

    :param databases: names of the database that is to be made.
    """
    root = root_of(databases)
    return all(_state(os.path.join(root, path)) == state for path, state in files.items())


def _state(path: str) -> str:
    """Return a digest of a file, or of the names in a directory."""
    try:
        if os.path.isdir(path):
            names = sorted(os.listdir(path))
            kept = [one for one in names if not one.startswith(".")]
            text = "\0".join(one for one in kept if not one.endswith(_NOT_LISTED))
            return f"names:{hashlib.sha256(os.fsencode(text)).hexdigest()}"
        if not os.path.isfile(path):
            return _OTHER if os.path.lexists(path) else _ABSENT
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return _OTHER


class _Noted:
    """What is noted for one block."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self.found = FilesRead()
        self._root = root_of(databases)
        self._directories = tuple(
            os.path.abspath(one.migrations_path) + os.sep for one in databases
        )
        self._env = {directory + "env.py" for directory in self._directories}
        self._databases = {
            _path("sqlite3.connect", (one.settings.url.database,))
            for one in databases
            if not one.backend.is_server and one.settings.url.database
        }
        self._made: set[str] = set()

    def hear(self, event: str, arguments: tuple[Any, ...], frame: FrameType) -> None:
        """Note an event of Python's, see "Audit events" in its documentation."""
        if event in _PROCESSES:
            if not (_is_start_of_ours(frame) or self._is_of_env(frame)):
                self.found.is_complete = False
            return
        path = _path(event, arguments)
        if path is None:
            return
        if event == "os.mkdir" or (event == "open" and not _is_read(path, *arguments[1:])):
            self._will_make(path)
        elif not (event in {"os.listdir", "os.scandir"} and _is_of_finder(frame)):
            self._read(path, frame)

    def _will_make(self, path: str) -> None:
        if not os.path.lexists(path):
            self._made.add(path)

    def _read(self, path: str, frame: FrameType) -> None:
        if path.endswith(".pyc"):
            try:
                path = importlib.util.source_from_cache(path)
            except ValueError:
                return
        name = recorded(path, self._root)
        if not (name in self.found or self._is_left_out(path) or self._is_of_env(frame)):
            self.found[name] = _state(path)

    def _is_left_out(self, path: str) -> bool:
        return (
            is_foreign(path + os.sep)
            or f"{path}{os.sep}".startswith(self._directories)
            or _is_of_the_system(f"{path}{os.sep}")
            or _JOURNAL.sub("", path) in self._databases
            or path.endswith("__pycache__")
            or path in self._made
            or any(str(parent) in self._made for parent in Path(path).parents)
        )

    def _is_of_env(self, frame: FrameType) -> bool:
        """Tell whether something happens in what ``env.py`` imports."""
        inner, outer = frame, frame.f_back
        while outer is not None:
            file = _absolute(outer.f_code.co_filename)
            if file in self._env:
                return _is_import(inner)
            if file.startswith(self._directories):
                return False
            inner, outer = outer, outer.f_back
        return False


def _path(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the absolute path of an event."""
    path = arguments[0]
    if event in {"os.listdir", "os.scandir"} and path is None:
        path = "."
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None  # a number of an open file
    name = os.fsdecode(path)
    if event == "sqlite3.connect":
        if name.startswith("file:") and "mode=memory" not in name:
            name = unquote(urlsplit(name).path)
        if not name or name.startswith((":memory:", "file:")):
            return None
    return os.path.abspath(name)


def _is_read(path: str, mode: str | None, flags: int | None) -> bool:
    """Tell whether a file that is opened so has something to be read."""
    if flags is None:
        return (mode or "r")[:1] == "r"
    if flags & (os.O_TRUNC | os.O_EXCL) or flags & os.O_WRONLY:
        return False
    return not flags & os.O_CREAT or os.path.lexists(path)


def _is_import(frame: FrameType) -> bool:
    """Tell whether a frame is of Python's import."""
    name = frame.f_code.co_filename
    return name.startswith("<frozen importlib") or name == importlib.__file__


def _is_of_finder(frame: FrameType) -> bool:
    """Tell whether a directory is listed to find modules or distributions in it."""
    name = frame.f_code.co_filename
    return name.startswith("<frozen importlib") or "importlib" in Path(name).parent.parent.name


def _is_start_of_ours(frame: FrameType) -> bool:
    """Tell whether a process is started by us, by an import of a library, such as a driver, or
    by Python to learn about the machine.
    """
    outer: FrameType | None = frame
    while outer is not None:
        name = outer.f_code.co_filename
        if name.startswith((_OURS, "<frozen importlib")) or name in _ABOUT_MACHINE:
            return True
        if not is_foreign(name):
            return False
        outer = outer.f_back
    return False


@cache
def _absolute(name: str) -> str:
    return name if name.startswith("<") else os.path.abspath(name)


_listening: list[_Noted] = []
_here = local()


@cache
def _watch() -> None:
    # there is no way to take it away again, see PEP 578
    sys.addaudithook(_heard)


_EVENTS = {"open", "os.listdir", "os.scandir", "os.mkdir", "sqlite3.connect", *_PROCESSES}


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listening or event not in _EVENTS or getattr(_here, "is_busy", False):
        return
    # in all threads, for a revision may start some
    _here.is_busy = True
    frame = sys._getframe(1)
    try:
        for noted in tuple(_listening):
            try:
                noted.hear(event, arguments, frame)
            except Exception:
                # it would reach the code that opens the file
                noted.found.is_complete = False
    finally:
        _here.is_busy = False


def _is_of_the_system(path: str) -> bool:
    # what is in memory are files like others
    return path.startswith(("/proc/", "/sys/", "/dev/")) and not path.startswith("/dev/shm/")
