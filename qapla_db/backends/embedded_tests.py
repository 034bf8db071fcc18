"""``embedded://tests?database=NAME``: the PostgreSQL server of the tests of one project.

It loses what it holds when the machine ends, and is made anew where it does not
start. Its data directory is ``qapla_db-tests-UID/PROJECT/data``, in memory where
there is room, else in the directory for temporary files.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from qapla_db.errors import InvalidArgument, ServerError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from qapla_db.backends.embedded_server import EmbeddedServer

__all__ = ["HOST", "SETTINGS", "data_directory", "is_of_tests", "named", "project_name", "start"]

HOST = "tests"
"""What stands where a server's name would."""

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # nothing is replicated, so that less is logged
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # memory is worth more than the segments of a log that nobody reads
    "wal_recycle": "off",
    "wal_init_zero": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "checkpoint_timeout": "1d",
    # a worker of it in a template database would hold its copies up
    "autovacuum": "off",
    "jit": "off",
    # of several workers, each with several engines
    "max_connections": "200",
}
"""Settings of the server; what the URL says wins over them."""

ROOM = 1 << 30
"""Bytes that must be free in memory for a new data directory."""

_MEMORY = Path("/dev/shm")
_MOUNTS = Path("/proc/mounts")
_ROOTS = ("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".git")
_NAME = re.compile(r"\w[\w.-]{0,40}", re.ASCII)


def is_of_tests(url: sa.URL) -> bool:
    """Tell whether a URL means the server of the tests."""
    return url.drivername.partition("+")[0] == "embedded" and url.host == HOST


def named(url: sa.URL) -> sa.URL:
    """Return the URL of a server of the tests with the project in it, which the path stands for.

    :raises InvalidArgument: it says too little or too much.
    """
    name = url.database or project_name()
    is_bare = url.username is None and url.password is None and url.port is None
    if not (is_bare and _NAME.fullmatch(name) and url.query.get("database")):
        raise InvalidArgument(
            f"a URL that begins with embedded://{HOST} is not of the form "
            f"embedded://{HOST}?database=NAME_test"
        )
    return url.set(drivername="embedded+psycopg", database=name)


def project_name() -> str:
    """Return a name for the project of the working directory, unlike that of any other."""
    here = Path.cwd().resolve()
    root = next(
        (one for one in (here, *here.parents) if any((one / mark).exists() for mark in _ROOTS)),
        here,
    )
    readable = re.sub(r"[^\w-]+", "-", root.name, flags=re.ASCII).strip("-_")[:20]
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:10]
    return f"{readable or 'project'}-{digest}"


def data_directory(name: str) -> Path:
    """Return where the data of a project's server is, or will be; nothing is made."""
    places = [_private(base) / name for base in _bases()]
    for place in places:
        if place.is_dir():
            return place / "data"
    return _with_room(places) / "data"


def start(name: str, options: Mapping[str, str]) -> EmbeddedServer:
    """Make sure that a project's server runs, and own it together with others.

    :param options: server settings, which win over :data:`SETTINGS`.
    :raises ServerError: it does not start, or somebody else has its directory.
    """
    from qapla_db.backends import embedded_server

    if sys.platform != "win32":  # where it says itself that there is none
        _choose(name)
    return embedded_server.start(data_directory(name), {**SETTINGS, **options}, expendable=True)


def _choose(name: str) -> None:
    """Make the directory of a project where there is none, once for all processes."""
    private = [_private(base) for base in _bases()]
    _make_private(private[0])
    # not two processes, of which one sees enough room and the other does not
    lock = os.open(private[0] / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = data_directory(name).parent
        _make_private(place.parent)
        _make_private(place)
    finally:
        os.close(lock)


def _private(base: Path) -> Path:
    user = os.geteuid() if hasattr(os, "geteuid") else "0"
    return base / f"qapla_db-tests-{user}"


def _bases() -> list[Path]:
    found = [Path(tempfile.gettempdir()).resolve()]
    if _is_in_memory(_MEMORY) and os.access(_MEMORY, os.W_OK | os.X_OK):
        found.insert(0, _MEMORY)
    return found


def _is_in_memory(directory: Path) -> bool:
    try:
        mounts = [line.split(" ") for line in _MOUNTS.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return False
    kinds = [fields[2] for fields in mounts if fields[1] == str(directory)]
    return kinds[-1:] == ["tmpfs"]


def _with_room(places: list[Path]) -> Path:
    *in_memory, last = places
    for place in in_memory:
        if shutil.disk_usage(_MEMORY).free > ROOM:
            return place
    return last


def _make_private(directory: Path) -> None:
    """Make a directory that nobody else can write to, or see that it is one.

    The directory above it may be everybody's.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & 0o022:
        raise ServerError(
            f"{directory} is to be the private directory for the server of the tests, but it is "
            "not a directory that belongs to the user of this process and that nobody else can "
            "write to; find out who made it, remove it, and try again"
        )
    # the service user that runs the servers of root has to pass
    mode = 0o711 if os.geteuid() == 0 else 0o700
    if stat.S_IMODE(found.st_mode) != mode:
        directory.chmod(mode)
