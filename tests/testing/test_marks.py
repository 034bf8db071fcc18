"""One fault is reported once, and the databases that a test may use are those of its fixtures."""

from __future__ import annotations

from tests.testing.projects import Project

STRICT = "[pytest]\npythonpath = .\nqapla_db_strict = true\n"

FIXTURES = """
from qapla_db.testing import fixtures_for
from ships import ShipApplication

main = fixtures_for(ShipApplication, "main")
isolation, main_session = main.isolation, main.dbsession
audit = fixtures_for(ShipApplication, "audit")
audit_session = audit.dbsession
"""


def test_a_name_that_no_database_has(postgresql_project: Project) -> None:
    """A mark with a typing error is one error, before the test runs."""
    output = postgresql_project.run(
        """
        class TestTypo(ShipFixture):
            @pytest.mark.database("mian")
            def test_it(self):
                christen("Amar")
        """,
        expect=1,
    )
    assert "1 error in" in output
    assert "UnknownDatabase" in output
    assert "'mian'" in output
    assert "DatabaseNotNamed" not in output


def test_a_name_that_another_application_could_have(postgresql_project: Project) -> None:
    """Where there are other applications a mark with a typing error is one error, too."""
    output = postgresql_project.run(
        """
        class OtherApplication(ShipApplication):
            pass

        class TestTypo(ShipFixture):
            APP_CLASS = ShipApplication

            @pytest.mark.database("mian")
            def test_used(self):
                christen("Amar")

            @pytest.mark.database("mian", "main")
            def test_not_used(self):
                christen("Amar")
        """,
        expect=1,
    )
    assert "FAILED test_it.py::TestTypo::test_used" in output
    assert "ERROR test_it.py::TestTypo::test_not_used" in output
    assert "1 failed, 1 passed, 1 error in" in output


def test_a_fixture_that_uses_another_database(postgresql_project: Project) -> None:
    """A database that a fixture may not use is one error; one that is hidden there is, too."""
    output = postgresql_project.run(
        """
        from contextlib import suppress

        @pytest.mark.database("audit")
        class TestFixtures(ShipFixture):
            @pytest.fixture
            def uses(self):
                christen("Amar")

            @pytest.fixture
            def hides(self):
                with suppress(Exception):
                    christen("Amar")

            def test_used(self, uses):
                pass

            def test_hidden(self, hides):
                pass

            def test_fails(self):
                with pytest.raises(AssertionError):
                    christen("Amar")
        """,
        expect=1,
    )
    assert "2 passed, 3 errors in" in output
    for name in ("used", "hidden", "fails"):
        assert 1 == output.count(f"ERROR test_it.py::TestFixtures::test_{name}")


def test_strict_with_several_sessions(project: Project) -> None:
    """A test may use the databases of all its sessions, whichever of its fixtures comes first."""
    project.write("pytest.ini", STRICT)
    project.write("conftest.py", FIXTURES)
    output = project.run(
        """
        def rename(*sessions):
            for session in sessions:
                session.get(Ship, 1).name = "changed"
                session.commit()

        @pytest.mark.parametrize("again", range(2))
        def test_both(again, main_session, audit_session):
            assert SEED == names() == names("audit")
            rename(main_session, audit_session)
            assert "changed" in names() and "changed" in names("audit")

        def test_other_order(audit_session, main_session):
            assert SEED == names() == names("audit")
            rename(main_session, audit_session)

        @pytest.mark.real_commit
        @pytest.mark.parametrize("again", range(2))
        def test_really(again, main_session, audit_session):
            assert SEED == names() == names("audit")
            rename(main_session, audit_session)

        class TestClass(ShipFixture):
            def test_class(self, dbsession, audit_session):
                assert SEED == names() == names("audit")
                rename(dbsession, audit_session)

        def test_one(main_session):
            assert SEED == names()
            names("audit")
        """,
        expect=1,
    )
    assert "1 failed, 6 passed in" in output
    assert "FAILED test_it.py::test_one" in output


def test_a_test_that_closes_a_database(project: Project) -> None:
    """It is one error, which says what to do, and the tests after it have the database."""
    output = project.run(
        """
        class TestClosing(ShipFixture):
            def test_closes(self):
                christen("Amar")
                application.dbs["main"].close()

            @pytest.mark.real_commit
            def test_really(self):
                christen("Amar")
                application.dbs["main"].close()

            def test_shown(self):
                application.dbs["main"].close()
                christen("Amar")

            @pytest.mark.parametrize("again", range(2))
            def test_after_it(self, again, dbsession):
                assert SEED == names() == names("audit")
                christen("Amar")
                assert 3 == dbsession.query(Ship).count()
        """,
        expect=1,
    )
    assert "1 failed, 4 passed, 2 errors in" in output
    assert "test_closes has closed the database 'main' of the application ShipApp" in output
    assert "a test that closes an application makes one of its own" in output


def test_a_test_that_closes_the_application(project: Project) -> None:
    """Tests that use the application afterwards say which one has closed it."""
    project.write(
        "conftest.py",
        FIXTURES.replace("isolation, main_session = main.isolation,", "main_session ="),
    )
    output = project.run(
        """
        class TestClosing(ShipFixture):
            def test_closes(self):
                application.close()

            def test_after_it(self):
                pass

        class TestAnother(ShipFixture):
            def test_task(self):
                christen("Amar")

        def test_function(main_session):
            christen("Amar")
        """,
        expect=1,
    )
    assert "2 failed, 1 passed, 1 error in" in output
    assert "test_after_it uses the application ShipApplication, which was closed by test" in output
    assert 2 == output.count("an application was closed by test_it.py::TestClosing::test_closes")


def test_an_application_that_is_closed_without_a_sandbox(project: Project) -> None:
    """After a real commit, or in a class with rows, it may be closed as elsewhere."""
    output = project.run(
        """
        class EachFixture(BaseApplicationFixture):
            @classmethod
            def make_application(cls):
                return ShipApplication()

        class TestReally(EachFixture):
            @pytest.mark.real_commit
            def test_closes(self, dbsession, application):
                dbsession.add(Ship(name="Amar"))
                dbsession.commit()
                dbsession.close()
                application.close()

        class TestAfterIt(EachFixture):
            def test_it(self, dbsession):
                assert 2 == dbsession.query(Ship).count()

        class TestRows(EachFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                dbsession.add(Ship(name="Amar"))

            def test_closes(self, dbsession, application):
                assert 3 == dbsession.query(Ship).count()
                dbsession.close()
                application.close()

        class TestAfterRows(TestAfterIt):
            @pytest.mark.real_commit
            def test_really(self, dbsession):
                self.test_it(dbsession)
        """
    )
    assert "5 passed" in output


def test_rows_of_a_class_in_a_database_that_a_test_does_not_name(
    postgresql_project: Project,
) -> None:
    """What a test names is no limit for set_up_data, also where it runs again for the test."""
    output = postgresql_project.run(
        """
        class TestRows(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                dbsession.add(Ship(name="Amar"))
                christen("Amar")
                with application.dbs["audit"].transaction() as session:
                    session.add(Ship(name="Amar"))

            def check(self):
                assert 4 == len(names())
                assert [*SEED, "Amar"] == names("audit")

            def test_before(self):
                self.check()

            @pytest.mark.database("main")
            @pytest.mark.real_commit
            @pytest.mark.parametrize("again", range(2))
            def test_really(self, again):
                assert 4 == len(names())
                christen("another")

            def test_after(self):
                self.check()
        """
    )
    assert "4 passed" in output


def test_arguments_that_mean_nothing(postgresql_project: Project) -> None:
    """A mark or an attribute that would be taken for something else is refused."""
    output = postgresql_project.run(
        """
        class TestMarks(ShipFixture):
            @pytest.mark.real_commit(False)
            def test_mark(self):
                pass

        class TestThreads(ShipFixture):
            ALLOWED_THREADS = "watchman"

            def test_threads(self):
                pass
        """,
        expect=1,
    )
    assert "2 errors" in output
    assert "a mark 'real_commit' with arguments" in output
    assert "('watchman',)" in output


def test_sessions_in_conflict(project: Project) -> None:
    """It is one fault: shown by the test, hidden by it, or found out after it."""
    output = project.run(
        """
        from contextlib import contextmanager

        @contextmanager
        def in_conflict(dbsession):
            with application.dbs["main"].session() as other:
                dbsession.add(Ship(name="Amar"))
                dbsession.flush()
                other.add(Ship(name="Ya'Vang"))
                other.flush()
                yield other

        class TestConflict(ShipFixture):
            def test_shown(self, dbsession):
                with in_conflict(dbsession):
                    dbsession.rollback()

            def test_hidden(self, dbsession):
                with in_conflict(dbsession), pytest.raises(Exception):
                    dbsession.rollback()

            def test_later(self, dbsession):
                with in_conflict(dbsession) as other:
                    dbsession.query(Ship).update({"name": "changed"})
                    dbsession.commit()
                    other.rollback()

            def test_after_it(self):
                assert SEED == names() == names("audit")
        """,
        expect=1,
    )
    assert "2 failed, 2 passed, 1 error in" in output
    assert "ERROR test_it.py::TestConflict::test_hidden" in output


def test_a_mark_with_a_list(postgresql_project: Project) -> None:
    """The names of a mark are arguments; a list of them is shown, with what to write."""
    output = postgresql_project.run(
        """
        @pytest.mark.database(["main"])
        class TestList(ShipFixture):
            def test_it(self):
                pass
        """,
        expect=1,
    )
    assert "has a mark 'database' that names ['main']; write the names as text" in output


def test_what_breaks_a_sandbox(project: Project) -> None:
    """It is named with its line, and the database, which is made anew, is nobody's task."""
    output = project.run(
        """
        class TestBroken(ShipFixture):
            def test_it(self, dbsession):
                christen("Amar")
                dbsession.connection().exec_driver_sql("COMMIT")

            def test_after_it(self):
                assert SEED == names()
        """,
        expect=1,
    )
    assert "2 passed, 1 error in" in output
    file = project.path / "test_it.py"
    line = 1 + file.read_text().splitlines().index(
        '        dbsession.connection().exec_driver_sql("COMMIT")'
    )
    assert f"'COMMIT', at {file}:{line} in test_it, ended the outer transaction" in output
    assert "recreate" not in output
    assert "the database has been made anew for the tests that follow" in output


def test_a_broken_sandbox_that_another_error_hides(project: Project) -> None:
    """The database is made anew too where a test ends with an error of something else."""
    output = project.run(
        """
        left = []

        def commit_really():
            christen("Amar")
            with application.dbs["main"].session() as session:
                session.connection().exec_driver_sql("COMMIT")

        class TestBroken(ShipFixture):
            def test_leak(self):
                commit_really()
                left.append(application.dbs["audit"].get_session())
                left[0].query(Ship).all()

            def test_after_a_leak(self):
                assert SEED == names() == names("audit")

        class TestConflict(ShipFixture):
            DATABASE_KEY = "audit"

            def test_conflict(self, dbsession):
                commit_really()
                with application.dbs["audit"].session() as other:
                    dbsession.add(Ship(name="Amar"))
                    dbsession.flush()
                    other.add(Ship(name="Ya'Vang"))
                    other.flush()
                    with pytest.raises(Exception):
                        dbsession.rollback()

            def test_after_a_conflict(self):
                assert SEED == names() == names("audit")
        """,
        expect=1,
    )
    assert "4 passed, 2 errors in" in output


def test_a_broken_sandbox_that_a_test_shows(postgresql_project: Project) -> None:
    """It is one error, and the database is made anew."""
    output = postgresql_project.run(
        """
        class TestBroken(ShipFixture):
            def test_it(self, dbsession):
                dbsession.add(Ship(name="Amar"))
                dbsession.flush()
                raw = application.dbs["main"].engine.raw_connection()
                raw.commit()
                raw.driver_connection.cursor().execute("SELECT 1")
                raw.close()
                dbsession.commit()

            def test_after_it(self):
                assert SEED == names()
        """,
        expect=1,
    )
    assert "FAILED test_it.py::TestBroken::test_it - qapla_db.errors.SandboxBroken" in output
    assert "1 failed, 1 passed in" in output


def test_the_mark_to_write(postgresql_project: Project) -> None:
    """The error of a database that is not named shows the mark with all that are needed."""
    project = postgresql_project
    project.write("pytest.ini", STRICT)
    project.write("conftest.py", FIXTURES)
    output = project.run(
        """
        def test_strict(main_session):
            names("audit")

        @pytest.mark.database("audit")
        def test_marked(main_session):
            names("main")
        """,
        expect=1,
    )
    assert "2 failed in" in output
    assert "give it the mark @pytest.mark.database('main', 'audit')" in output
    assert "give it the mark @pytest.mark.database('audit', 'main')" in output
