"""Tests that commit for real, and what is left of them: nothing."""

from __future__ import annotations

from tests.testing.projects import Project

PAIR = """
def seed(database="main"):
    assert SEED == names(database)
    with application.dbs[database].session() as session:
        ship = Ship(name="next")
        session.add(ship)
        session.flush()
        return ship.id

class Pair(ShipFixture):
    # in this order: the second one sees what the first one has left
    def test_it(self):
        self.commits()

    def test_nothing_is_left(self):
        assert seed() in (3, 4)
        seed("audit")

    @pytest.mark.real_commit
    def test_nothing_is_left_really(self):
        assert 3 == seed(), "a sequence goes on where another test left it"
"""


def test_rows_come_back(project: Project) -> None:
    """What was added, changed and deleted, by other processes too, is undone; so are sequences."""
    output = _run(
        project,
        """
import subprocess, sys

@pytest.mark.real_commit
class TestAdd(Pair):
    def commits(self):
        christen("Amar")
        with application.dbs["audit"].transaction() as session:
            session.delete(session.get(Ship, 1))
            session.get(Ship, 2).name = "changed"

@pytest.mark.real_commit
class TestDelete(Pair):
    def commits(self):
        with application.dbs["main"].engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM ship")

@pytest.mark.real_commit
class TestProcess(Pair):
    def commits(self):
        code = "from ships import *; application.run_tests(); christen('by another process')"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        assert [*SEED, "by another process"] == names()

@pytest.mark.real_commit
class TestAbandoned(Pair):
    def commits(self):
        self.engine = engine = application.dbs["main"].backend.create_engine(
            application.dbs["main"].settings.url, {}, label="other")
        connection = engine.connect()  # a transaction that holds locks
        connection.exec_driver_sql("UPDATE ship SET name = 'locked'")
        type(self).kept = connection

    def test_the_connection_was_ended(self):
        if "sqlite" not in str(self.kept.engine.url):
            with pytest.raises(Exception):
                self.kept.exec_driver_sql("SELECT 1")
        self.kept.invalidate()
        self.kept.close()
""",
    )
    assert "13 passed" in output
    assert ["main", "audit"] == project.migrated


def test_schemas_come_back(project: Project) -> None:
    """What a test does to the schema is undone, and the tests after it see what was migrated."""
    _run(
        project,
        """
def ddl(*statements):
    with application.dbs["main"].engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)

@pytest.mark.real_commit
class TestTable(Pair):
    def commits(self):
        ddl("CREATE TABLE other (id INTEGER)", "DROP TABLE ship")

@pytest.mark.real_commit
class TestColumn(Pair):
    def commits(self):
        ddl("ALTER TABLE ship ADD COLUMN other INTEGER")

    def test_the_column_is_gone(self):
        with application.dbs["main"].engine.connect() as connection:
            assert ["id", "name"] == list(connection.exec_driver_sql("SELECT * FROM ship").keys())

@pytest.mark.real_commit
class TestView(Pair):
    def commits(self):
        ddl("CREATE VIEW other AS SELECT id FROM ship")

    def test_the_view_is_gone(self):
        ddl("CREATE VIEW other AS SELECT id FROM ship", "DROP VIEW other")

@pytest.mark.real_commit
class TestDropped(Pair):
    def commits(self):
        application.dbs["main"].drop()
""",
    )
    assert ["main", "audit"] == project.migrated


def test_a_broken_sandbox_is_repaired(project: Project) -> None:
    """A commit behind a sandbox is the error of its test, and the next one sees nothing of it."""
    output = _run(
        project,
        """
class TestBroken(Pair):
    def commits(self):
        with application.dbs["main"].engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO ship (name) VALUES ('for good')")
            connection.exec_driver_sql("COMMIT")
""",
        expect=1,
    )
    assert "3 passed, 1 error" in output
    assert "ERROR test_it.py::TestBroken::test_it" in output
    assert "ended the outer transaction" in output
    assert "@pytest.mark.real_commit" in output
    assert ["main", "audit"] == project.migrated


def test_a_test_names_its_databases(postgresql_project: Project) -> None:
    """A test that uses a database which it has not named fails, also where that was hidden."""
    output = postgresql_project.run(
        """
from contextlib import suppress

class TestStrict(ShipFixture):
    @pytest.mark.database("audit")
    def test_other(self):
        christen("Amar")

    @pytest.mark.database("audit")
    def test_hidden(self):
        with suppress(Exception):
            christen("Amar")

    @pytest.mark.database("audit")
    @pytest.mark.real_commit
    def test_really(self):
        assert SEED == names("audit")
        christen("Amar")

    @pytest.mark.database("main", "audit")
    def test_both(self):
        assert SEED == names("audit")
        christen("Amar")

    @pytest.mark.database("main", "audiit")
    def test_typo(self):
        christen("Amar")

    @pytest.mark.database
    def test_none(self):
        pass

    def test_without(self):
        assert SEED == names() == names("audit")
""",
        expect=1,
    )
    for line in [
        "FAILED test_it.py::TestStrict::test_other",
        "ERROR test_it.py::TestStrict::test_hidden",
        "FAILED test_it.py::TestStrict::test_really",
        "ERROR test_it.py::TestStrict::test_typo",
        "ERROR test_it.py::TestStrict::test_none",
        "2 failed, 3 passed, 3 errors",
    ]:
        assert line in output
    assert "test_it.py::TestStrict::test_other used the database 'main', at " in output
    assert "give it the mark @pytest.mark.database('audit', 'main')" in output


def test_strict(postgresql_project: Project) -> None:
    """With qapla_db_strict a test without a mark may use the database of dbsession only."""
    postgresql_project.write("pytest.ini", "[pytest]\npythonpath = .\nqapla_db_strict = true\n")
    postgresql_project.write(
        "conftest.py",
        """
        from qapla_db.testing import fixtures_for
        from ships import ShipApplication

        audit = fixtures_for(ShipApplication, "audit")
        audit_session = audit.dbsession
        """,
    )
    output = postgresql_project.run(
        """
class TestStrict(ShipFixture):
    def test_own(self, dbsession):
        assert SEED == names()

    def test_other(self):
        names("audit")

    @pytest.mark.database("audit", "main")
    def test_named(self):
        assert SEED == names() == names("audit")

def test_function(audit_session):
    assert SEED == names("audit")

def test_other_function(audit_session):
    names("main")
""",
        expect=1,
    )
    assert "2 failed, 3 passed" in output
    assert "FAILED test_it.py::TestStrict::test_other" in output
    assert "FAILED test_it.py::test_other_function" in output


def _run(project: Project, tests: str, expect: int = 0) -> str:
    return project.run(PAIR + tests, expect=expect)


def test_outside_of_tests(project: Project) -> None:
    """Whatever uses a test database outside of a test fails there, and no test sees it."""
    output = project.run(
        """
        class TestSetupClass(ShipFixture):
            @classmethod
            def setup_class(cls):
                if application.phase == "prepared":
                    christen("too early")

            @pytest.fixture(scope="class", autouse=True)
            @classmethod
            def ships(cls, application):
                christen("too wide")

            def test_it(self):
                pass

        class OtherApplication(ShipApplication):
            pass

        class TestOther(BaseApplicationFixture):
            APP_CLASS = OtherApplication

            def test_other_application(self):
                christen("of another application")

        class TestClean(ShipFixture):
            def test_nothing_is_left(self, dbsession):
                assert SEED == names()
                dbsession.connection()

            @classmethod
            def teardown_class(cls):
                with pytest.raises(Exception, match="the test database 'main' of ShipAppl"):
                    christen("too late")

        class TestCleanToo(ShipFixture):
            @pytest.mark.real_commit
            def test_nothing_is_left(self):
                assert SEED == names()
        """,
        expect=1,
    )
    assert "1 failed, 2 passed, 1 error" in output
    assert "test_it.py" in output.partition("is used where no test of this application runs, at")[2]
