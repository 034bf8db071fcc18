"""Real servers for the tests: those that the environment names, or our own on free sockets."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from tests.support import wait_until

READY = 60.0
"""Seconds that a server may take to start."""

_MEMORY = "/dev/shm"
_ROOM = 4 * 2**30
"""Bytes that must be free there."""


@contextmanager
def directory(prefix: str) -> Iterator[Path]:
    """Yield a directory that a service user may traverse, gone at the end."""
    path = Path(tempfile.mkdtemp(prefix=f"qapla-{prefix}-", dir=_in_memory()))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _in_memory() -> str | None:
    """Return a directory in memory, where a database is made ten times as fast; None for any."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free > _ROOM else None


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    with suppress(AssertionError):
        wait_until(lambda: ready() or process.poll() is not None, "the server starts", READY)
    if not ready():
        process.kill()
        raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def mariadb() -> Iterator[sa.URL | str]:
    """Yield the URL of a MariaDB server, or the reason why there is none."""
    given = os.environ.get("QAPLA_TEST_MARIADB_URL")
    if given:
        yield sa.make_url(given)
        return
    program = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    install = shutil.which("mariadb-install-db")
    if not program or not install:
        yield "MariaDB is not installed and QAPLA_TEST_MARIADB_URL is not set"
        return
    with directory("mariadb") as home:
        user = _service_user(home, "mysql")
        data, socket, log = home / "data", home / "s", home / "log"
        subprocess.run(
            [
                install,
                "--no-defaults",
                f"--user={user}",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
            timeout=READY,
        )
        options = [
            "--skip-networking",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
            "--innodb-fast-shutdown=2",
        ]
        options += ["--innodb-buffer-pool-size=64M", "--performance-schema=OFF"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    program,
                    "--no-defaults",
                    f"--user={user}",
                    f"--datadir={data}",
                    f"--socket={socket}",
                    f"--pid-file={home / 'pid'}",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(socket.exists, process, log)
            yield sa.URL.create("mariadb+pymysql", "root", query={"unix_socket": str(socket)})
        finally:
            _end(process)


@contextmanager
def redis() -> Iterator[str | None]:
    """Yield the URL of a Redis server, or None where there is none."""
    given = os.environ.get("QAPLA_TEST_REDIS_URL")
    program = shutil.which("redis-server")
    if given or not program:
        yield given
        return
    with directory("redis") as home:
        socket, log = home / "s", home / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "--port", "0", "--unixsocket", str(socket), "--save", ""],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(socket.exists, process, log)
            yield f"redis+socket://{socket}"
        finally:
            _end(process)


@contextmanager
def pgbouncer(server: sa.URL) -> Iterator[sa.URL | str]:
    """Yield the URL of a PgBouncer in transaction mode before a server, or why there is none.

    :param server: of a PostgreSQL with a Unix socket.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if not program:
        yield "PgBouncer is not installed"
        return
    with directory("pgbouncer") as home:
        user = _service_user(home, "postgres")
        configuration, log = home / "ini", home / "log"
        port = 6432  # a part of the socket's name: nothing listens on the network
        configuration.write_text(
            f"[databases]\n* = host={server.query['host']} user={server.username}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {port}\nunix_socket_dir = {home}\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 40\n"
            "max_client_conn = 200\nignore_startup_parameters = extra_float_digits\n"
        )
        configuration.chmod(0o644)
        as_user = ["-u", user] if os.geteuid() == 0 else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, *as_user, str(configuration)],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait((home / f".s.PGSQL.{port}").exists, process, log)
            yield server.set(query={"host": str(home), "port": str(port)})
        finally:
            _end(process)


def _service_user(home: Path, name: str) -> str:
    import pwd  # only Unix has it

    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    os.chown(home, pwd.getpwnam(name).pw_uid, -1)
    return name


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
