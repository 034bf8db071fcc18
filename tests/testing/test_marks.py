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
