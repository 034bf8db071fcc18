"""Starts and ends PostgreSQL servers that belong to the processes that use them.

Such a server listens on a Unix socket in a directory that only its user (and
root) can enter, and on no TCP port; therefore it trusts whoever gets in. Only
PostgreSQL's programs are needed. When root starts it, it runs as the owner of
the data directory or as a service user.
:mod:`~qapla_db.backends.embedded_supervisor` ends it after its last owner.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from qapla_db.backends import embedded_supervisor
from qapla_db.backends.embedded_cluster import Cluster, account_for, socket_directory_for
from qapla_db.backends.embedded_programs import (
    ACCEPTS,
    PORT,
    check_options,
    find_binaries,
    program_environment,
    responds,
)
from qapla_db.backends.embedded_renewal import renew, start_or_renew
from qapla_db.backends.embedded_supervisor import STAY, is_free, open_lock
from qapla_db.errors import ServerError

if sys.platform != "win32":
    import fcntl

__all__ = ["EmbeddedServer", "find_binaries", "is_running", "release", "start", "stop"]

LOCK_SECONDS = 200.0
"""How long another process may be busy with the same server: a new cluster and a slow start."""


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that was running when it was asked for."""

    directory: Path
    """The data directory, absolute."""
    socket_directory: Path
    version: str
    """The major version of PostgreSQL."""

    def url(self, database: str = "postgres") -> sa.URL:
        """Return the URL of a database of this server, for psycopg."""
        # with the port, because libpq would take it from PGPORT
        query = {"host": str(self.socket_directory), "port": PORT}
        return sa.URL.create("postgresql+psycopg", "postgres", database=database, query=query)


class _Claim:
    """The shared lock that makes this process, and its forked children, an owner."""

    def __init__(self, directory: Path) -> None:
        self._path = f"{directory}.owners"
        self._descriptor = open_lock(directory, "owners")
        self._identity = os.fstat(self._descriptor)
        try:
            _wait_for(self._descriptor, fcntl.LOCK_SH, directory)
        except BaseException:
            os.close(self._descriptor)
            raise

    def holds(self) -> bool:
        """Whether it still counts: a daemon closes descriptors, a user removes files."""
        with suppress(FileNotFoundError):
            return self._is_open() and os.path.samestat(self._identity, os.stat(self._path))
        return False

    def close(self) -> None:
        # never unlocked: that would take the lock from forked children too
        if self._is_open():
            os.close(self._descriptor)

    def _is_open(self) -> bool:
        try:
            return os.path.samestat(self._identity, os.fstat(self._descriptor))
        except OSError:
            return False


class _Place:
    """What this process knows of a data directory."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.claim: _Claim | None = None
        self.server: EmbeddedServer | None = None

    def own(self, directory: Path) -> None:
        if self.claim and self.claim.holds():
            return
        self.disown()
        self.claim = _Claim(directory)

    def disown(self) -> None:
        if self.claim:
            self.claim.close()
        self.claim = None

    def owns_running_server(self) -> bool:
        return bool(self.claim and self.claim.holds() and self.server and _listens(self.server))


_places: dict[Path, _Place] = {}
_start_locks: set[int] = set()


def _after_fork_in_child() -> None:
    """Let go of what other threads of the parent were doing; its ownership is the child's too."""
    while _start_locks:
        with suppress(OSError):
            os.close(_start_locks.pop())
    for place in _places.values():
        place.guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def start(
    directory: str | os.PathLike[str],
    options: Mapping[str, str] | None = None,
    *,
    binaries: Path | None = None,
    stay: bool = False,
    expendable: bool = False,
) -> EmbeddedServer:
    """Make sure that the server of a data directory runs, and own it together with others.

    The directory is made when it does not exist. The server ends with its last
    owner, in whatever way that one ends; children forked from an owner are
    owners too. May be called at any time, by several threads and processes at
    once: it is cheap when there is nothing to do, and starts a server again
    that was stopped or killed.

    :param options: server settings (``{"fsync": "off"}``); they count when the server
        is started, one that runs already is left as it is
    :param binaries: directory of PostgreSQL's programs, instead of :func:`find_binaries`
    :param stay: the server needs no owner, and runs until :func:`stop`
    :param expendable: the data may be thrown away where no server can run on them, and the
        directory is one that nobody else has a use for
    :raises InvalidArgument: an option that is no setting, or not free to choose
    :raises DriverMissing: PostgreSQL's programs were not found
    :raises ServerError: the server does not start; with the end of its log
    """
    path = _absolute(directory)
    settings = check_options(options or {})
    place = _places.setdefault(path, _Place())
    with place.guard, _explained("start", path):
        if stay or not place.owns_running_server():
            cluster = Cluster(path, account_for(path), binaries or find_binaries())
            place.server = _start(place, cluster, settings, stay=stay, expendable=expendable)
        assert place.server is not None
        return place.server


def release(directory: str | os.PathLike[str]) -> None:
    """No longer own the server of a data directory; without owners it ends soon."""
    if place := _places.get(_absolute(directory)):
        with place.guard:
            place.disown()


def stop(directory: str | os.PathLike[str]) -> None:
    """Stop the server of a data directory, cutting its connections, whoever owns it.

    Does nothing when none runs. The next :func:`start` of any process starts it again.

    :raises ServerError: it did not end within a minute, or may not be stopped by this user
    """
    path = _absolute(directory)
    place = _places.setdefault(path, _Place())
    with place.guard, _explained("stop", path):
        place.disown()
        if not path.is_dir():
            return
        with _start_lock(path) as lock:
            os.ftruncate(lock, 0)
            stopped = embedded_supervisor.stop_postmaster(path)
            if not stopped and place.server and _listens(place.server):
                raise ServerError(
                    f"the server of {path} runs, but its process cannot be seen from here "
                    "(another container?); stop it where it was started"
                )


def is_running(directory: str | os.PathLike[str]) -> bool:
    """Return whether the server of a data directory accepts connections, by ``pg_isready``."""
    path = _absolute(directory)
    with _explained("find", path):
        if not path.is_dir():
            return False
        return responds(find_binaries(), socket_directory_for(path, path.stat().st_uid)) == ACCEPTS


def _absolute(directory: str | os.PathLike[str]) -> Path:
    if sys.platform == "win32":
        raise ServerError(
            "an embedded PostgreSQL needs Unix; on Windows install a server, "
            "and name it with a postgresql:// URL"
        )
    return Path(directory).resolve()


def _start(
    place: _Place, cluster: Cluster, settings: Mapping[str, str], *, stay: bool, expendable: bool
) -> EmbeddedServer:
    path = cluster.directory
    path.parent.mkdir(parents=True, exist_ok=True)
    if not expendable:
        cluster.check()
    with _start_lock(path) as lock:
        runs = cluster.runs()
        if expendable and not runs:
            renew(cluster)
        cluster.make(lock, sync=settings.get("fsync") != "off")
        if stay:
            os.pwrite(lock, STAY, 0)
        elif not runs:
            os.ftruncate(lock, 0)
        try:
            if not stay:
                place.own(path)
            with nullcontext() if stay else _supervised(path):
                if not expendable:
                    cluster.start(settings)
                elif not runs:
                    start_or_renew(cluster, settings, lock)
        except BaseException:
            place.disown()
            raise
        return EmbeddedServer(path, cluster.socket_directory, cluster.version)


@contextmanager
def _supervised(directory: Path) -> Iterator[None]:
    """Start a supervisor, where there is none, while the block starts the server."""
    probe = open_lock(directory, "supervisor")
    try:
        is_there = not is_free(probe, fcntl.LOCK_EX)
        if not is_there:
            fcntl.flock(probe, fcntl.LOCK_UN)
    finally:
        os.close(probe)
    if is_there:
        yield
        return
    with subprocess.Popen(
        [_interpreter(), "-I", "-S", str(Path(embedded_supervisor.__file__)), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=program_environment(),
        start_new_session=True,
    ) as beginning:
        try:
            yield
        finally:
            try:
                code = beginning.wait(30)
            except subprocess.TimeoutExpired:
                beginning.kill()
                code = beginning.wait()
        if code:
            embedded_supervisor.stop_postmaster(directory)
            raise subprocess.CalledProcessError(code, beginning.args)


def _interpreter() -> str:
    # uWSGI and frozen programs put themselves into sys.executable
    for one in (sys.executable, f"{sys.exec_prefix}/bin/python3", shutil.which("python3")):
        if one and Path(one).name.startswith("python") and os.access(one, os.X_OK):
            return one
    raise ServerError("no Python interpreter was found to watch over an embedded PostgreSQL")


def _listens(server: EmbeddedServer) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(server.socket_directory / f".s.PGSQL.{PORT}"))
        except OSError:
            return False
        return True


def _wait_for(descriptor: int, mode: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while not is_free(descriptor, mode):
        if time.monotonic() > deadline:
            raise ServerError(
                f"another process has been starting or stopping the server of {directory} "
                f"for {LOCK_SECONDS:g} s; look for it, end it, and try again"
            )
        time.sleep(0.01)


@contextmanager
def _start_lock(directory: Path) -> Iterator[int]:
    lock = open_lock(directory, "lock")
    _start_locks.add(lock)
    try:
        _wait_for(lock, fcntl.LOCK_EX, directory)
        yield lock
    finally:
        _start_locks.discard(lock)
        fcntl.flock(lock, fcntl.LOCK_UN)  # a child forked meanwhile shares the descriptor
        os.close(lock)


@contextmanager
def _explained(task: str, directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(
            f"could not {task} the embedded PostgreSQL of {directory}: {error}"
        ) from error
