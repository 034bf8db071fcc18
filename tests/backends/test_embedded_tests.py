"""``embedded://tests?database=NAME``: the server of the tests of one project."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.application import DatabaseApplication
from qapla_db.backends import embedded_server, embedded_tests, get_backend
from qapla_db.backends.embedded_supervisor import postmaster_pid
from qapla_db.backends.urls import complete_url
from qapla_db.errors import InvalidArgument, ServerError, SettingInvalid
from tests import servers
from tests.support import make_application, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an embedded server needs Unix")
for_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone can become another user"
)

URL = "embedded://tests?database=ships_test"
SECONDS = 60.0


@pytest.fixture(scope="module")
def module_project() -> Iterator[Path]:
    """A project directory whose server the tests of this file share."""
    with servers.directory("project") as home:
        (home / "pyproject.toml").touch()
        yield home
        _remove(home)


@pytest.fixture
def project(module_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is that project."""
    monkeypatch.chdir(module_project)
    return module_project


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files of the test's own, and no memory to put data in."""
    with servers.directory("place") as home:
        monkeypatch.setattr("tempfile.tempdir", str(home))
        monkeypatch.setattr(embedded_tests, "_MEMORY", home / "no-memory")
        yield home
        for pid_file in home.glob("*/*/data/postmaster.pid"):
            embedded_server.stop(pid_file.parent)


def _remove(project: Path) -> None:
    """Stop the server of a project, and remove its data."""
    before = Path.cwd()
    os.chdir(project)
    try:
        data = embedded_tests.data_directory(embedded_tests.project_name())
    finally:
        os.chdir(before)
    embedded_server.stop(data)
    shutil.rmtree(data.parent, ignore_errors=True)


def data_of_project() -> Path:
    return embedded_tests.data_directory(embedded_tests.project_name())


def application() -> DatabaseApplication:
    return make_application({"main": URL}, endpoint="tests")


def value(app: DatabaseApplication, question: str) -> object:
    with app.dbs["main"].session() as session:
        return session.scalar(sa.text(question))


def as_server_user(data: Path, *command: str) -> None:
    account = data.stat()
    given = {"user": account.st_uid, "group": account.st_gid} if os.geteuid() == 0 else {}
    subprocess.run(command, check=True, timeout=SECONDS, **given)  # type: ignore[call-overload]


# --- what one gets


def test_from_the_setting_to_the_session(project: Path) -> None:
    """The settings of a project need this one line: the database is made, used and dropped."""
    with application() as app:
        database = app.dbs["main"]
        database.create()
        try:
            with database.transaction() as session:
                session.execute(sa.text("CREATE TABLE ship (name TEXT)"))
            assert database.exists()
            assert "ships_test" == value(app, "SELECT current_database()")
        finally:
            assert database.drop()


def test_the_server_does_not_wait_for_the_disk(project: Path) -> None:
    """What makes tests fast is set, and what the URL says wins."""
    url = f"{URL}&jit=on&work_mem=7MB"
    embedded_server.stop(data_of_project())
    with make_application({"main": url}, endpoint="tests") as app:
        app.dbs["main"].create()
        names = ("fsync", "full_page_writes", "synchronous_commit", "wal_level", "jit", "work_mem")
        found = [value(app, f"SHOW {name}") for name in names]
        assert ["off", "off", "off", "minimal", "on", "7MB"] == found
        assert "500ms" == value(app, "SHOW client_connection_check_interval")
        app.dbs["main"].drop()
    embedded_server.stop(data_of_project())


def test_nothing_is_made_before_the_first_use(
    place: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing for tests starts nothing and makes no directory."""
    with application() as app:
        assert "ships_test" == app.dbs["main"].backend.name_of(app.dbs["main"].settings.url)
        assert str(place) in app.dbs["main"].settings.identity[0]
    assert [] == list(place.iterdir())


def test_data_are_kept_between_runs(project: Path) -> None:
    """A server that ended with its run is started with what was in it."""
    with application() as app:
        app.dbs["main"].create()
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("CREATE TABLE kept AS SELECT 42 AS answer"))
    embedded_server.stop(data_of_project())
    with application() as app:
        assert 42 == value(app, "SELECT answer FROM kept")
        app.dbs["main"].drop()


# --- where it is


def test_in_memory_where_there_is_room(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data are in memory if enough of it is free, else among the temporary files."""
    if not embedded_tests._is_in_memory(Path("/dev/shm")):
        pytest.skip("this machine has no directory in memory")
    name = "no-such-project"
    monkeypatch.setattr(embedded_tests, "ROOM", 1)
    inside = embedded_tests.data_directory(name)
    assert inside.is_relative_to("/dev/shm")
    monkeypatch.setattr(embedded_tests, "ROOM", 1 << 60)
    outside = embedded_tests.data_directory(name)
    assert outside.is_relative_to(tempfile.gettempdir())
    assert inside != outside


def test_once_it_is_somewhere_it_stays_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    """Room that comes or goes does not part the processes of a run: they find what is there."""
    memory = place / "memory"
    memory.mkdir(mode=0o777)
    (place / "mounts").write_text(f"tmpfs {memory} tmpfs rw 0 0\n")
    monkeypatch.setattr(embedded_tests, "_MEMORY", memory)
    monkeypatch.setattr(embedded_tests, "_MOUNTS", place / "mounts")
    for room, other in [(1, 1 << 60), (1 << 60, 1)]:
        name = f"project-{room}"
        monkeypatch.setattr(embedded_tests, "ROOM", room)
        chosen = embedded_tests.data_directory(name)
        embedded_tests._choose(name)
        monkeypatch.setattr(embedded_tests, "ROOM", other)
        assert chosen == embedded_tests.data_directory(name)


def test_a_disk_is_no_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /dev/shm that is a plain directory, as in some containers, is not taken for memory."""
    memory = place / "memory"
    memory.mkdir(mode=0o777)
    (place / "mounts").write_text(f"tmpfs {memory} tmpfs rw 0 0\noverlay {memory} overlay rw 0 0\n")
    monkeypatch.setattr(embedded_tests, "_MEMORY", memory)
    monkeypatch.setattr(embedded_tests, "_MOUNTS", place / "mounts")
    assert not embedded_tests.data_directory("ships").is_relative_to(memory)


def test_two_projects_have_two_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Projects of one name in two places do not share; the directories of one project do."""
    found = []
    for parent in ("one", "other"):
        root = tmp_path / parent / "ships"
        (root / "tests" / "unit").mkdir(parents=True)
        (root / "pyproject.toml").touch()
        for directory in (root, root / "tests" / "unit"):
            monkeypatch.chdir(directory)
            backend = get_backend(sa.make_url(URL))
            assert backend is not None
            found.append(backend.identity(backend.complete(sa.make_url(URL))))
    assert found[0] == found[1] != found[2] == found[3]


def test_every_process_and_spelling_means_the_same(project: Path) -> None:
    """Another process, elsewhere in the project and later, tells the same server."""
    with application() as app:
        ours = app.dbs["main"].settings
        assert not app.dbs["main"].exists()
        script = (
            "import json, sys; from qapla_db.backends.urls import complete_url\n"
            "found = [complete_url(one, 'key', 'main') for one in sys.argv[1:]]\n"
            "print(json.dumps([backend.identity(url) for url, backend in found]))"
        )
        spelt = [URL, "embedded+psycopg://tests/?database=ships_test", str(ours.url)]
        real = ours.backend.server_url(ours.url)
        done = subprocess.run(
            [sys.executable, "-c", script, *spelt, real.render_as_string(hide_password=False)],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert [list(ours.identity)] * 4 == json.loads(done.stdout)


def test_processes_that_begin_at_once_share_one_server(place: Path, project: Path) -> None:
    """The workers of a parallel run find one server, which one of them makes."""
    script = (
        "import tempfile; from pathlib import Path\n"
        "from qapla_db.backends import embedded_tests as tests\n"
        f"tempfile.tempdir = {str(place)!r}; tests._MEMORY = Path({str(place / 'no-memory')!r})\n"
        "import psycopg\n"
        "url = tests.start(tests.project_name(), {}).url()\n"
        "with psycopg.connect(host=url.query['host'], user='postgres', dbname='postgres') as one:\n"
        "    print(*one.execute('VALUES (pg_postmaster_start_time())').fetchone())\n"
        "    input()"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(3)
    ]
    try:
        with ThreadPoolExecutor() as threads:
            reads = [threads.submit(one.stdout.readline) for one in workers if one.stdout]
            said = {read.result(SECONDS) for read in reads}
        assert 1 == len(said)
        assert said.pop().strip()
    finally:
        for one in workers:
            one.communicate("\n", timeout=SECONDS)


# --- whose it is


def test_it_is_private(project: Path) -> None:
    """Nobody else can enter the data, or write to the directories above them."""
    with application() as app:
        app.dbs["main"].exists()
    data = data_of_project()
    assert 0o700 == stat.S_IMODE(data.stat().st_mode)
    passable = 0o711 if os.geteuid() == 0 else 0o700
    for above in (data.parent, data.parent.parent):
        assert (os.geteuid(), passable) == (above.stat().st_uid, stat.S_IMODE(above.stat().st_mode))


@pytest.mark.parametrize("kind", ["link", "file", "writable", "foreign", "link-below"])
def test_a_directory_that_may_be_somebody_elses_is_refused(
    place: Path, project: Path, kind: str
) -> None:
    """What another user of the machine put in the way is named, and neither used nor removed."""
    private, elsewhere = embedded_tests._private(place), place / "elsewhere"
    (elsewhere / "keep").mkdir(parents=True)
    if kind == "link":
        private.symlink_to(elsewhere)
    elif kind == "file":
        private.touch()
    elif kind == "link-below":
        private.mkdir(mode=0o700)
        (private / embedded_tests.project_name()).symlink_to(elsewhere)
    else:
        private.mkdir()
        private.chmod(0o777 if kind == "writable" else 0o700)
        if kind == "foreign":
            if os.geteuid() != 0:
                pytest.skip("root alone can give a directory away")
            os.chown(private, 65534, 65534)
    with application() as app, pytest.raises(ServerError, match="find out who made it"):
        app.dbs["main"].exists()
    assert ["keep"] == os.listdir(elsewhere)


@for_root
def test_root_runs_it_as_a_service_user(project: Path) -> None:
    """For root the server runs as another user, who can reach nothing but the data."""
    with application() as app:
        app.dbs["main"].exists()
        data = data_of_project()
        process = postmaster_pid(data)
        assert process
        assert data.stat().st_uid == os.stat(f"/proc/{process}").st_uid != 0


# --- made anew


def is_supervised(data: Path) -> bool:
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    )
    return f"embedded_supervisor.py {data}" in listed.stdout


def make_table(app: DatabaseApplication) -> None:
    app.dbs["main"].create()
    with app.dbs["main"].transaction() as session:
        session.execute(sa.text("CREATE TABLE gone ()"))


@pytest.mark.parametrize(
    "damage", ["version", "control", "emptied", "halved", "all", "reboot", "age"]
)
def test_broken_data_are_made_anew(place: Path, project: Path, damage: str) -> None:
    """Another version, a crash or a cleared memory cost the data, and never a run."""
    with application() as app:
        make_table(app)
        data = data_of_project()
        embedded_server.stop(data)
        (data.parent / "other").mkdir()
        if damage == "version":
            (data / "PG_VERSION").write_text("9\n")
        elif damage == "control":
            (data / "global" / "pg_control").write_bytes(b"")
        elif damage == "emptied":
            shutil.rmtree(data / "base")
        elif damage == "halved":
            (data / "PG_VERSION").unlink()
        elif damage == "reboot":
            Path(f"{data}.boot").write_text("another")
        elif damage == "age":
            os.utime(f"{data}.boot", (0, 0))
        else:
            # with the locks by which the next one would wait for its end
            wait_until(lambda: not is_supervised(data), "the supervisor has ended")
            shutil.rmtree(data.parent.parent)
        assert app.dbs["main"].create()
        assert "0" == str(value(app, "SELECT count(*) FROM pg_class WHERE relname = 'gone'"))
        assert (damage != "all") == (data.parent / "other").is_dir()


def test_a_setting_that_is_none_is_told(place: Path, project: Path) -> None:
    """A server that does not start with new data either says why."""
    with make_application({"main": f"{URL}&no_such_setting=1"}, endpoint="tests") as app:
        with pytest.raises(ServerError, match="no_such_setting"):
            app.dbs["main"].exists()


def test_a_killed_server_keeps_its_data(project: Path) -> None:
    """Data from which a server can recover are not thrown away."""
    with application() as app:
        make_table(app)
        killed = postmaster_pid(data_of_project())
        assert killed
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: postmaster_pid(data_of_project()) is None, "the server is dead")
        assert app.dbs["main"].exists()
        app.dbs["main"].drop()


def test_a_server_that_runs_is_left_as_it_is(project: Path) -> None:
    """Data whose server others use are not made anew, whatever a newcomer thinks of them."""
    with application() as app:
        make_table(app)
        data, running = data_of_project(), postmaster_pid(data_of_project())
        version = (data / "PG_VERSION").read_text()
        (data / "PG_VERSION").write_text("9\n")
        Path(f"{data}.boot").write_text("another")
        try:
            script = (
                "from qapla_db.backends import embedded_tests as tests\n"
                "print(tests.start(tests.project_name(), {}).directory)"
            )
            subprocess.run(
                [sys.executable, "-c", script],
                check=True,
                timeout=SECONDS,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        finally:
            as_server_user(data, "sh", "-c", f"printf '{version}' > '{data}/PG_VERSION'")
        assert running == postmaster_pid(data)
        assert 1 == value(app, "SELECT count(*) FROM pg_class WHERE relname = 'gone'")
        app.dbs["main"].drop()
    embedded_server.stop(data)


def test_data_of_other_urls_are_never_made_anew(place: Path) -> None:
    """A directory that a URL names is somebody's, also where it does not start."""
    data = place / "data"
    embedded_server.start(data, {"fsync": "off"})
    embedded_server.stop(data)
    (data / "global" / "pg_control").write_bytes(b"")
    with make_application({"main": f"embedded:///{data}?database=ships_test"}) as app:
        with pytest.raises(ServerError, match="did not start"):
            app.dbs["main"].exists()
    assert b"" == (data / "global" / "pg_control").read_bytes()


# --- for tests alone


@pytest.mark.parametrize("endpoint", ["wsgi", "command", "celery", "shell"])
def test_nothing_but_tests_may_use_it(endpoint: str) -> None:
    """Whoever would keep data there is told what would become of them, and where to go."""
    with pytest.raises(SettingInvalid, match=f"may be lost at any time.*{endpoint}.*tests.py"):
        complete_url(URL, "db:main:url", "main", endpoint=endpoint)
    url, _ = complete_url(URL, "db:main:url", "main", endpoint="tests")
    assert "tests" == url.host


@pytest.mark.parametrize(
    "url",
    [
        "embedded://tests",
        "embedded://tests/?fsync=off",
        "embedded://tests//home/me/data?database=x_test",
        "embedded://tests/..?database=x_test",
        "embedded://tests/a/b?database=x_test",
        "embedded://tests:5432?database=x_test",
        "embedded://me@tests?database=x_test",
        "embedded://test?database=x_test",
    ],
)
def test_other_forms_are_refused(url: str) -> None:
    """No URL of this form can name a directory; the error shows the form."""
    backend = get_backend(sa.make_url(url))
    assert backend is not None
    with pytest.raises(InvalidArgument, match=r"embedded://tests\?database=NAME"):
        backend.complete(sa.make_url(url))


def test_the_rule_for_test_databases_holds(project: Path) -> None:
    """A name without the part "test" is refused here too."""
    from qapla_db.errors import Refused

    with make_application({"main": "embedded://tests?database=ships"}, endpoint="tests") as app:
        with pytest.raises(Refused, match="has no part 'test'"):
            app.dbs["main"].check_droppable()
