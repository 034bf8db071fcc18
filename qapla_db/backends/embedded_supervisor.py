"""Ends an embedded PostgreSQL server with the last process that owns it.

Three lock files stand beside the data directory, and are never removed, so
that every process locks the same ones:

``DIRECTORY.lock``
    held exclusively while a server is started or stopped; its content ``stay``
    means that the server has no owners and only ``stop()`` ends it
``DIRECTORY.owners``
    held shared by every owner, so the system lets go of it however an owner ends
``DIRECTORY.supervisor``
    held exclusively by the one supervisor

:mod:`~qapla_db.backends.embedded_server` runs this file as a script in an
isolated interpreter, detached from its starter; it needs the standard library
alone. Order of locking: start lock, owners; whoever must wait for the owners
holds nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["STAY", "is_free", "open_lock", "postmaster_pid", "recorded_pid", "stop_postmaster"]

STAY = b"stay"
STOP_SECONDS = 60.0
LOOKS = 4
"""How often an absent server is looked for: a starter that was killed while
``pg_ctl`` ran leaves a server that has not written its pid file yet."""


def open_lock(directory: Path, purpose: str) -> int:
    """Open a lock file of a data directory; programs that are executed do not inherit it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(f"{directory}.{purpose}", flags, 0o600)


def is_free(descriptor: int, mode: int) -> bool:
    """Take a lock if that is possible at once, and return whether it was."""
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def recorded_pid(directory: Path) -> int | None:
    """Return the process that the pid file of a data directory names; it may be any by now."""
    try:
        return abs(int((directory / "postmaster.pid").read_text("utf-8").partition("\n")[0]))
    except (FileNotFoundError, ValueError):
        return None


def postmaster_pid(directory: Path) -> int | None:
    """Return the process that serves a data directory, or None."""
    pid = recorded_pid(directory)
    return pid if pid is not None and _serves(pid, directory) else None


def _serves(pid: int, directory: Path) -> bool:
    process = Path(f"/proc/{pid}")
    if not Path("/proc/self/comm").exists():
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
        return "postgres" in shown and str(directory) in shown
    try:
        if not (process / "comm").read_text().startswith(("postgres", "postmaster")):
            return False
        try:
            return os.path.samefile(process / "cwd", directory)
        except PermissionError:  # a container's root may not follow it
            return os.fsencode(directory) in (process / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop_postmaster(directory: Path) -> bool:
    """Stop the server of a data directory, cutting its connections; return whether there was one.

    The caller holds the start lock.
    Raises TimeoutError when it does not end within a minute.
    """
    pid = postmaster_pid(directory)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)  # a "fast" shutdown
    deadline = time.monotonic() + STOP_SECONDS
    while postmaster_pid(directory) == pid:
        if time.monotonic() > deadline:
            raise TimeoutError(f"PostgreSQL (process {pid}) did not end in {STOP_SECONDS:g} s")
        time.sleep(0.01)
    return True


def _supervise(directory: Path, supervisor: int) -> None:
    owners, starting = open_lock(directory, "owners"), open_lock(directory, "lock")
    looks = LOOKS
    while looks:
        fcntl.flock(starting, fcntl.LOCK_UN)
        time.sleep(0 if looks == LOOKS else 0.5)
        fcntl.flock(owners, fcntl.LOCK_EX)  # until the last owner has ended
        fcntl.flock(owners, fcntl.LOCK_UN)
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not is_free(owners, fcntl.LOCK_EX):
            looks = LOOKS
        elif os.pread(starting, len(STAY), 0) == STAY or stop_postmaster(directory):
            break
        else:
            fcntl.flock(owners, fcntl.LOCK_UN)
            looks -= 1
    # before the start lock: the next starter must see that it needs a new supervisor
    os.close(supervisor)


def main() -> None:
    """Become the supervisor of ``sys.argv[1]``, detached; return at once if it has one."""
    directory = Path(sys.argv[1])
    supervisor = open_lock(directory, "supervisor")
    if is_free(supervisor, fcntl.LOCK_EX) and os.fork() == 0:
        os.chdir("/")
        _supervise(directory, supervisor)


if __name__ == "__main__":
    main()
