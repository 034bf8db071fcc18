"""Data directories that may be lost: thrown away where a server cannot run on them.

:mod:`~qapla_db.backends.embedded_server` calls this under the start lock of the
directory, while no server accepts connections in it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from qapla_db.backends.embedded_cluster import Cluster
from qapla_db.backends.embedded_programs import PORT
from qapla_db.backends.embedded_supervisor import stop_postmaster
from qapla_db.errors import ServerError

__all__ = ["renew", "start_or_renew"]

log = logging.getLogger("qapla_db")

_DAY = 86_400.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def renew(cluster: Cluster) -> None:
    """Throw the data of a cluster away where they are of no use.

    That is if another version of PostgreSQL made them, or something else. It is also if
    the machine has been started since, for what was not on the disk by then may be missing
    anywhere, and if no server was started for a day: directories for temporary files are
    swept of what is old, file by file.

    :raises ServerError: no server can run there.
    """
    mark = Path(f"{cluster.directory}.boot")
    boot = _boot()
    try:
        if cluster.directory.exists():
            _check_age(mark, boot)
        cluster.check()
    except ServerError as error:
        _discard(cluster, error)
        cluster.check()
    descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w") as file:
        file.write(boot)


def start_or_renew(cluster: Cluster, options: Mapping[str, str], lock: int) -> None:
    """Start the server of a cluster, with new data where it does not work with the old ones.

    :raises ServerError: it does not start with new ones either.
    """
    try:
        cluster.start(options)
        _check_connection(cluster)
    except ServerError as error:
        _discard(cluster, error)
        cluster.make(lock, sync=False)
        cluster.start(options)


def _discard(cluster: Cluster, error: ServerError) -> None:
    if not cluster.directory.exists():
        return
    log.warning("the data directory %s is made anew: %s", cluster.directory, error)
    stop_postmaster(cluster.directory)
    shutil.rmtree(cluster.directory)


def _boot() -> str:
    """Return what is another after each start of the machine, where the system tells."""
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return ""


def _check_age(mark: Path, boot: str) -> None:
    try:
        found, age = mark.read_text("ascii", "replace"), time.time() - mark.stat().st_mtime
    except FileNotFoundError:
        found, age = None, 0
    if found != boot:
        raise ServerError("the machine has been started since, or nobody knows when it was made")
    if age > _DAY:
        raise ServerError("it has not been used for a day")


def _check_connection(cluster: Cluster) -> None:
    where = {"host": str(cluster.socket_directory), "port": PORT}
    url = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query=where)
    try:
        sa.create_engine(url, poolclass=sa.NullPool).connect().close()
    except sa.exc.DBAPIError as error:
        raise ServerError(f"its server refuses connections: {error.orig}") from error
