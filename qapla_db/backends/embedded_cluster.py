"""A data directory of PostgreSQL: how it is made, and how its server is started.

Nothing here locks: :mod:`~qapla_db.backends.embedded_server` calls it under the
directory's start lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qapla_db.backends.embedded_programs import (
    ACCEPTS,
    OURS,
    PORT,
    REJECTS,
    program_environment,
    responds,
)
from qapla_db.backends.embedded_supervisor import postmaster_pid, recorded_pid
from qapla_db.errors import ServerError

if sys.platform != "win32":
    import pwd

__all__ = ["Account", "Cluster", "account_for", "socket_directory_for"]

START_SECONDS = 60
DYING_SECONDS = 5.0
INITDB_SECONDS = 120
LOG = "server.log"
LOG_BYTES = 1 << 20
LOG_LINES = 20
SERVICE_USERS = ("postgres", "nobody")

# libpq divides a host at commas, and the path of a socket has 104 bytes
_FIT_FOR_SOCKET = re.compile(r"/[\w ./+=~-]{0,88}", re.ASCII)
# what PostgreSQL says while a predecessor is not quite dead
_DYING = re.compile(r'lock file "|shared memory block')
_ENTER_ALL = 'for one; do cd -P -- "$one" 2>/dev/null || { printf %s "$one"; exit 1; }; done'


def socket_directory_for(directory: Path, uid: int) -> Path:
    """Return where the socket of a data directory is: in it, unless its path does not fit."""
    if _FIT_FOR_SOCKET.fullmatch(str(directory)):
        return directory
    # not the temporary directory: two processes must not disagree about it
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(f"/tmp/qapla_db-{uid}-{digest}")


@dataclass(frozen=True)
class Account:
    """The user that a server runs as."""

    uid: int
    gid: int
    name: str

    @classmethod
    def of(cls, uid: int) -> Account:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:  # usual in containers
            return cls(uid, os.getegid(), f"with the id {uid}")
        return cls(uid, entry.pw_gid, entry.pw_name)


def account_for(directory: Path) -> Account:
    """Return the user for the server of a data directory: its owner, never root.

    For root and a new directory that is the first existing service user.

    :raises ServerError: the directory is not ours, or there is no service user
    """
    me = os.geteuid()
    owner = directory.stat().st_uid if directory.exists() else me
    if me not in (0, owner):
        raise ServerError(
            f"the data directory {directory} belongs to the user {Account.of(owner).name}; "
            "start its server as that user, or name another directory"
        )
    if owner != 0:
        return Account.of(owner)
    for name in SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name)
    raise ServerError(
        f"PostgreSQL refuses to run as root, and there is no user {' or '.join(SERVICE_USERS)} "
        f"to run the server of {directory} as; run as another user, or add the user postgres"
    )


@dataclass(frozen=True)
class Cluster:
    """A data directory, with the programs and the user of its server."""

    directory: Path
    account: Account
    binaries: Path

    @property
    def socket_directory(self) -> Path:
        return socket_directory_for(self.directory, self.account.uid)

    @property
    def version(self) -> str:
        return (self.directory / "PG_VERSION").read_text("ascii").strip()

    def check(self) -> None:
        """See that a server can run in the data directory, and change nothing.

        :raises ServerError: another version's, other files, or a place out of reach
        """
        self._check_access()
        if self._is_made:
            self._check_owner()
            self._check_version()
        elif self.directory.exists() and any(self.directory.iterdir()):
            raise ServerError(
                f"{self.directory} is neither empty nor a data directory of PostgreSQL; "
                "name a new directory"
            )

    def make(self, lock: int, *, sync: bool) -> None:
        """Make the data directory if it is new, and private if it is not.

        :param lock: start lock, held until ``initdb`` has ended even if we are killed
        :param sync: whether ``initdb`` is to wait for the disk
        :raises ServerError: ``initdb`` failed, with the end of what it said
        """
        if not self._is_made:
            self._initialise(lock, sync)
        elif stat.S_IMODE(self.directory.stat().st_mode) != 0o700:
            self.directory.chmod(0o700)

    def runs(self) -> bool:
        return responds(self.binaries, self.socket_directory) == ACCEPTS

    def start(self, options: Mapping[str, str]) -> None:
        """Start the server, or wait for one that is starting or ending.

        :raises ServerError: it did not start, with the end of its log
        """
        begin = time.monotonic()
        while (state := responds(self.binaries, self.socket_directory)) != ACCEPTS:
            waited = time.monotonic() - begin
            pid = postmaster_pid(self.directory)
            if pid is None and state != REJECTS:
                self._remove_stale_locks()
                failure = self._launch(options)
                if failure is None:
                    return
                if waited > DYING_SECONDS or not _DYING.search(failure):
                    raise ServerError(
                        f"PostgreSQL did not start in {self.directory}; "
                        f"the end of its {LOG}:\n{failure}"
                    )
            elif waited > (START_SECONDS if state == REJECTS else DYING_SECONDS):
                raise ServerError(
                    f"a server of {self.directory} is there (process {pid}), but does not "
                    f"accept connections in {self.socket_directory}; stop it, and try again"
                )
            time.sleep(0.05)

    @property
    def _is_made(self) -> bool:
        return (self.directory / "PG_VERSION").is_file()

    def _check_access(self) -> None:
        if not self._is_foreign:
            return
        places = [*reversed(self.directory.parents), *reversed(self.binaries.parents)]
        code, refused = self._run(
            "/bin/sh", "-c", _ENTER_ALL, "sh", *map(str, places), str(self.binaries), seconds=30
        )
        if code:
            what = "data directory" if self.directory.is_relative_to(refused) else "programs"
            raise ServerError(
                f"root runs PostgreSQL as the user {self.account.name}, who cannot enter "
                f"{refused}, and so not reach the {what} "
                f"({self.directory if what == 'data directory' else self.binaries}); "
                f"put them elsewhere, allow it (chmod o+x {shlex.quote(refused)}), "
                "or work as an ordinary user"
            )

    def _check_owner(self) -> None:
        if self.directory.stat().st_uid != self.account.uid:
            raise ServerError(
                f"the data directory {self.directory} belongs to root, as whom PostgreSQL "
                f"refuses to run; give it to another user: "
                f"chown -R {self.account.name} {shlex.quote(str(self.directory))}"
            )

    def _check_version(self) -> None:
        code, shown = self._run(str(self.binaries / "postgres"), "--version", seconds=30)
        found = re.search(r"\d+", shown)
        if code or not found:
            raise ServerError(f"{self.binaries / 'postgres'} does not work: {shown.strip()}")
        if found[0] != self.version:
            raise ServerError(
                f"{self.directory} was made by PostgreSQL {self.version}, but the programs in "
                f"{self.binaries} are of version {found[0]}; set QAPLA_POSTGRES_BIN to programs "
                f"of version {self.version}, or move the data with pg_dump or pg_upgrade"
            )

    def _initialise(self, lock: int, sync: bool) -> None:
        # elsewhere first: an initdb that was killed must not leave half a data directory
        fresh = Path(f"{self.directory}.initdb")
        shutil.rmtree(fresh, ignore_errors=True)
        self._make_private(fresh)
        try:
            code, output = self._run(
                str(self.binaries / "initdb"),
                *("--auth=trust", "--locale=C.UTF-8", "-E", "UTF8", "-U", "postgres"),
                *(() if sync else ("-N",)),
                *("-D", str(fresh)),
                seconds=INITDB_SECONDS,
                keep=lock,
            )
            if code:
                raise ServerError(f"initdb failed for {self.directory}:\n{_tail(output)}")
            fresh.rename(self.directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _make_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        if self._is_foreign:
            os.chown(directory, self.account.uid, self.account.gid)

    def _prepare_socket_directory(self) -> None:
        sockets = self.socket_directory
        if sockets == self.directory:
            return
        try:
            self._make_private(sockets)
        except FileExistsError:
            found = sockets.lstat()
            if found.st_uid != self.account.uid or found.st_mode != stat.S_IFDIR | 0o700:
                raise ServerError(
                    f"{sockets} is to be the private socket directory of {self.directory}, but "
                    f"it is not a directory of the user {self.account.name} with the mode 0700; "
                    "find out who made it, remove it, and try again"
                ) from None

    def _remove_stale_locks(self) -> None:
        """Remove what a server that is no more left behind, if PostgreSQL would believe it."""
        (self.socket_directory / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        pid = recorded_pid(self.directory)
        # of a process that is gone PostgreSQL makes sure itself, and better
        if pid is None or _is_alive(pid):
            (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def _launch(self, options: Mapping[str, str]) -> str | None:
        """Start the server; return None, or what it said when it failed."""
        self._prepare_socket_directory()
        with open(self.directory / LOG, "a+b", opener=_open_private) as log:
            if self._is_foreign:
                os.fchown(log.fileno(), self.account.uid, self.account.gid)
            if log.seek(0, os.SEEK_END) > LOG_BYTES:
                log.truncate(0)
            begin = log.seek(0, os.SEEK_END)
            # pg_ctl cannot quote a directory for its shell, so it is told "." and we quote
            code, output = self._run(
                *(str(self.binaries / "pg_ctl"), "start", "-s", "-w", "-t", str(START_SECONDS)),
                *("-D", ".", "-l", LOG, "-o", self._server_arguments(options)),
                seconds=START_SECONDS + 30,
                cwd=self.directory,
            )
            log.seek(begin)
            said = log.read().decode("utf-8", "replace")
        return _tail(said or output) if code else None

    def _server_arguments(self, options: Mapping[str, str]) -> str:
        # quoted, or PostgreSQL would cut a blank off its end
        sockets = f'"{self.socket_directory}"'
        settings = {**options, **OURS, "unix_socket_directories": sockets}
        words = ["-D", str(self.directory)]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        return shlex.join(words)

    @property
    def _is_foreign(self) -> bool:
        return os.geteuid() != self.account.uid

    def _run(
        self, *command: str, seconds: float, cwd: Path = Path("/"), keep: int | None = None
    ) -> tuple[int, str]:
        """Run a program as the server's user in a session of its own; return code and output."""
        # to a file: a pipe would stay open as long as a server that inherits it
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=program_environment(),
                start_new_session=True,
                pass_fds=() if keep is None else (keep,),
                user=self.account.uid if self._is_foreign else None,
                group=self.account.gid if self._is_foreign else None,
                extra_groups=[] if self._is_foreign else None,
                timeout=seconds,
            )
            output.seek(0)
            return done.returncode, output.read().decode("utf-8", "replace")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # this only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])
