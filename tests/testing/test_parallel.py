"""Workers of pytest-xdist, and runs at one time, have databases of their own."""

from __future__ import annotations

import os
import signal

import pytest
import sqlalchemy as sa

from qapla_db.errors import SettingInvalid
from qapla_db.settings import database_settings
from tests.support import wait_until
from tests.testing.projects import HEAD, Project

MANY = """
class TestShips(ShipFixture):
    @pytest.mark.parametrize("number", range(24))
    def test_seed(self, number):
        assert SEED == names() == names("audit")
        christen("Amar")
        assert [*SEED, "Amar"] == names()

    @pytest.mark.real_commit
    @pytest.mark.parametrize("number", range(8))
    def test_really(self, number):
        assert SEED == names()
        christen("Amar")
"""

MEETING = """
import pathlib, threading, time

class TestShips(ShipFixture):
    @pytest.mark.real_commit
    def test_meeting(self):
        christen("Amar")
        here = pathlib.Path(__file__).parent
        (here / f"{ME}.here").touch()
        end, pause = time.monotonic() + 60, threading.Event()
        while not (here / f"{OTHER}.end").exists():
            assert time.monotonic() < end, "waited for the other run in vain"
            pause.wait(0.01)
        assert [*SEED, "Amar"] == names()
        print("AT", application.dbs["main"].settings.address)
"""

COPIES = """
class TestShips(ShipFixture):
    @pytest.mark.real_commit
    @pytest.mark.parametrize("number", range(6))
    def test_really(self, number):
        assert SEED == names() == names("audit")
        christen("Amar")
        with application.dbs["main"].engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
"""

WAITS = """
    import pathlib, threading, time
    end, pause = time.monotonic() + 30, threading.Event()
    while not pathlib.Path("second").exists():
        assert time.monotonic() < end, "waited for the second run in vain"
        pause.wait(0.01)
"""

# asking for one lock again is waiting for it
TELLS = """
import pathlib
import sqlalchemy as sa

asked = set()

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def note(connection, cursor, statement, *more):
    if "GET_LOCK" in statement and statement in asked:
        pathlib.Path("second").touch()
    asked.add(statement)
"""


def test_workers(project: Project) -> None:
    """Four workers, three times: one migrates, all copy, and none of their databases is left."""
    for _ in range(3 if "postgresql" in str(project.urls["main"]) else 1):
        output = project.run(MANY, "-n", "4")
        assert "32 passed" in output
    assert ["audit", "main"] == sorted(project.migrated)
    assert [] == [name for name in project.databases() if "_gw" in name]


def test_a_database_for_each_worker() -> None:
    """A worker's database is named after it, unless its settings have done so already."""

    def name(url: str, *, endpoint: str = "tests", passed: frozenset[str] = frozenset()) -> str:
        environ = {"PYTEST_XDIST_WORKER": "gw1"}
        settings = database_settings(
            {"db:main:url": url}, "main", endpoint=endpoint, passed=passed, environ=environ
        )
        return str(settings.url.query.get("database") or settings.url.database)

    server = "postgresql://u@localhost:5432/"
    assert "ships_test_gw1" == name(f"{server}ships_test")
    assert "ships_test_gw1" == name(f"{server}ships_test_gw1")
    assert "gw1_test" == name(f"{server}gw1_test")
    assert "ships_test_gw11_gw1" == name(f"{server}ships_test_gw11")
    assert "ships" == name(f"{server}ships", endpoint="wsgi")
    assert "ships_test" == name(f"{server}ships_test", passed=frozenset({"db:main:url"}))
    assert "/a.b/ships_test_gw1.sqlite3" == name("sqlite:////a.b/ships_test.sqlite3")
    assert "file:ships_test_gw1.db" == name("sqlite:///file:ships_test.db?uri=true")
    assert "None" == name("sqlite://")
    assert "ships_test_gw1" == name("embedded:///var/pg?database=ships_test")
    with pytest.raises(SettingInvalid, match="main"):
        name(f"{server}{'long_' * 12}test")


def test_two_runs_at_once(project: Project) -> None:
    """A run that finds its database in use by another run takes one with a number."""
    runs = []
    for me, other in (("one", "two"), ("two", "one")):
        text = MEETING.replace("{ME}", me).replace("{OTHER}", other)
        project.run(text, "--collect-only")
        project.write(f"test_{me}.py", (project.path / "test_it.py").read_text())
    for me in ("one", "two"):
        runs.append(project.start(f"test_{me}.py", "-s"))
        wait_until((project.path / f"{me}.here").exists, f"the run {me!r} has begun", 60)
    outputs = []
    for me, process in (("two", runs[1]), ("one", runs[0])):
        other = "one" if me == "two" else "two"
        (project.path / f"{other}.end").touch()
        outputs.append(process.communicate(timeout=60)[0])
        assert 0 == process.returncode, outputs[-1]
    name = _name(project)
    assert f"{name}_2" in outputs[0]
    assert f"{name}_2" not in outputs[1]
    assert f"{name}_2" not in project.databases()


def test_two_runs_that_copy(mariadb_project: Project) -> None:
    """A run that begins while another one migrates waits, and both copy that at one time."""
    project = mariadb_project
    path = "migrations/main/versions/0001_ships.py"
    revision = (project.path / path).read_text()
    project.write(path, revision.replace("    table =", f"{WAITS}    table ="))
    project.write("test_one.py", HEAD + COPIES)
    project.write("test_two.py", HEAD + COPIES + TELLS)
    first = project.start("test_one.py")
    wait_until(lambda: project.migrated, "the first run migrates", 60)
    second = project.start("test_two.py")
    for process in (first, second):
        output = process.communicate(timeout=60)[0]
        assert 0 == process.returncode, output
        assert "6 passed" in output
    assert ["audit", "main"] == sorted(project.migrated)


def test_a_run_that_was_killed(project: Project) -> None:
    """After a run that was killed in its migrations or its tests the next one works."""
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    path = "migrations/main/versions/0001_ships.py"
    revision = (project.path / path).read_text()
    project.write(path, revision.replace("    table =", f"    {kill}    table ="))
    project.run(MANY, expect=-signal.SIGKILL)
    project.write(path, revision)
    project.run(f"{kill}", expect=-signal.SIGKILL)
    project.run(MANY)
    assert 1 == len([name for name in project.databases() if name == _name(project)])


def test_processes_of_a_test_use_its_database(postgresql_project: Project) -> None:
    """A process that a test starts, prepared for tests, finds the database of its worker."""
    output = postgresql_project.run(
        """
        import subprocess, sys

        class TestShips(ShipFixture):
            @pytest.mark.real_commit
            @pytest.mark.parametrize("number", range(2))
            def test_process(self, number):
                code = "from ships import *; application.run_tests(); christen('Amar')"
                subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
                assert [*SEED, "Amar"] == names()
        """,
        *("-n", "2"),
    )
    assert "2 passed" in output


def _name(project: Project) -> str:
    url: sa.URL = project.urls["main"]
    return os.path.basename(str(url.database)).partition(".")[0]


def test_an_application_for_each_class(project: Project) -> None:
    """Applications that are made for each class share their databases, also closed ones'."""
    output = project.run(
        """
        import os
        import sqlalchemy as sa

        class EachFixture(BaseApplicationFixture):
            APP_CLASS = ShipApplication

            @classmethod
            def make_application(cls):
                made = cls.made = ShipApplication()
                return made

            def test_commit(self, dbsession):
                dbsession.add(Ship(name="Amar"))
                dbsession.commit()

            @pytest.mark.real_commit
            def test_really(self, dbsession):
                self.test_commit(dbsession)

            def test_nothing_is_left(self, application, dbsession):
                assert application is self.made
                assert SEED == [ship.name for ship in dbsession.query(Ship).order_by(Ship.id)]
                named = sa.make_url(os.environ["SHIPS_TEST_main"]).database
                assert named == application.dbs["main"].settings.url.database

            def test_the_end(self, application):
                if type(self) in (TestB, TestD):
                    application.close()

        class TestA(EachFixture): pass
        class TestB(EachFixture): pass
        class TestC(EachFixture): pass
        class TestD(EachFixture): pass
        """,
        *("-k", "TestA or TestB or TestC or TestD"),
    )
    assert "16 passed" in output
    assert ["main", "audit"] == project.migrated
