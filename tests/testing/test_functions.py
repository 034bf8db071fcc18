"""The fixtures for test functions, in projects of their own, each run by a pytest of its own."""

from __future__ import annotations

import pytest

from qapla_db import DatabaseApplication
from qapla_db.errors import Misuse
from qapla_db.testing import fixtures_for
from tests.testing.test_fixture import project, run

__all__ = ["project"]

CONFTEST = """
from qapla_db.testing import fixtures_for
from ships import OneApplication, TwoApplication

ships = fixtures_for(OneApplication, "main")
dbsession, app, plugins = ships.dbsession, ships.application, ships.dbplugin
audit_session = fixtures_for(TwoApplication, "audit").dbsession
"""


def test_functions(project: pytest.Pytester) -> None:
    """Fixtures work under the names that a conftest gives them, and isolate who uses them."""
    (project.path / "conftest.py").write_text(CONFTEST)
    result = run(
        project,
        """
        @pytest.mark.parametrize("again", range(2))
        def test_session(dbsession, again):
            assert [] == dbsession.query(Ship).all()
            christen("Rotarran")
            assert ["Rotarran"] == [ship.name for ship in dbsession.query(Ship)]

        def test_application(app, plugins):
            assert app is one
            assert plugins is one.dbs
            with plugins["main"].transaction() as session:
                session.add(Ship(name="Bortas"))

        def test_two_applications(dbsession, audit_session):
            audit_session.add(Ship(name="Amar"))
            audit_session.commit()
            christen("Rotarran")
            assert ["Rotarran"] == [ship.name for ship in dbsession.query(Ship)]
            assert ["Amar"] == [ship.name for ship in audit_session.query(Ship)]

        def test_that_nothing_is_left(dbsession, audit_session):
            assert [] == dbsession.query(Ship).all() + audit_session.query(Ship).all()

        def test_nothing_global(request):
            with pytest.raises(pytest.FixtureLookupError):
                request.getfixturevalue("settings")

        class TestClass(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_both_styles(self, dbsession, app):
                christen("Rotarran")
                assert ["Rotarran"] == [ship.name for ship in dbsession.query(Ship)]
        """,
    )
    result.assert_outcomes(passed=7)


def test_isolation(project: pytest.Pytester) -> None:
    """With isolation assigned, a test that names no fixture is isolated too."""
    (project.path / "conftest.py").write_text(f"{CONFTEST}\nisolation = ships.isolation\n")
    result = run(
        project,
        """
        @pytest.mark.parametrize("again", range(2))
        def test_it(again):
            christen("unseen")
            with one.dbs["main"].session() as session:
                assert ["unseen"] == [ship.name for ship in session.query(Ship)]
        """,
    )
    result.assert_outcomes(passed=2)


def test_leak(project: pytest.Pytester) -> None:
    """A session that a function leaves open is its own failure."""
    (project.path / "conftest.py").write_text(CONFTEST)
    result = run(
        project,
        """
        left = []

        def test_it(app):
            left.append(app.dbs["main"].get_session())
            left[0].query(Ship).all()
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    assert "a connection of the database 'main', taken by" in result.stdout.str()


def test_web(project: pytest.Pytester) -> None:
    """testapp is a WebTest client whose requests see, and store, what the test's session does."""
    ships = (project.path / "ships.py").read_text()
    (project.path / "ships.py").write_text(
        f"{ships}\n"
        "def view(request):\n"
        "    if request.method == 'POST':\n"
        "        request.main.add(Ship(name='posted'))\n"
        "        request.main.commit()\n"
        "    return [ship.name for ship in request.main.query(Ship).order_by(Ship.id)]\n"
        "\n"
        "def append_web_plugins(self):\n"
        "    self.add_database_web()\n"
        "    self.config.add_route('ships', '/')\n"
        "    self.config.add_view(view, route_name='ships', renderer='json')\n"
        "\n"
        "OneApplication.append_web_plugins = append_web_plugins\n"
    )
    (project.path / "conftest.py").write_text(f"{CONFTEST}\nclient = ships.testapp\n")
    result = run(
        project,
        """
        def use(client, dbsession):
            dbsession.add(Ship(name="stored"))
            dbsession.commit()
            assert ["stored"] == client.get("/").json
            assert ["stored", "posted"] == client.post("/").json
            assert 2 == dbsession.query(Ship).count()

        @pytest.mark.parametrize("again", range(2))
        def test_function(client, dbsession, again):
            use(client, dbsession)

        class TestClass(BaseApplicationFixture):
            APP_CLASS = OneApplication

            def test_method(self, testapp, dbsession):
                use(testapp, dbsession)
        """,
        "-W",
        "ignore:'cgi' is deprecated:DeprecationWarning",  # WebOb's
    )
    result.assert_outcomes(passed=3)


def test_a_key_that_no_database_has(project: pytest.Pytester) -> None:
    """A typing error in the name of a database names the fixtures, and what there is."""
    (project.path / "conftest.py").write_text(
        CONFTEST + "\nwrong = fixtures_for(TwoApplication, 'adit').dbsession\n"
    )
    result = run(project, "def test_it(wrong):\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*Misuse: fixtures_for(TwoApplication, 'adit') names the database 'adit', and *; "
            "it has 'main' and 'audit'"
        ]
    )


def test_arguments_that_mean_nothing() -> None:
    """Arguments in the wrong order are refused at the call, which names its own."""
    with pytest.raises(Misuse, match=r"fixtures_for\(\) needs app_class, .* and not 'main'"):
        fixtures_for("main", DatabaseApplication)  # type: ignore[arg-type]
    with pytest.raises(Misuse, match=r"fixtures_for\(\) needs .* as database_key, .* and not None"):
        fixtures_for(DatabaseApplication, None)  # type: ignore[arg-type]


def test_unittest(project: pytest.Pytester) -> None:
    """Tests of a TestCase are isolated by isolation, and the class for pytest's is refused."""
    (project.path / "conftest.py").write_text(f"{CONFTEST}\nisolation = ships.isolation\n")
    result = run(
        project,
        """
        from unittest import TestCase

        from qapla_db.errors import Misuse

        class TestShips(TestCase):
            def check(self):
                christen("unseen")
                with one.dbs["main"].session() as session:
                    assert ["unseen"] == [ship.name for ship in session.query(Ship)]

            def test_one(self):
                self.check()

            def test_another(self):
                self.check()

        @pytest.mark.parametrize("reverse", [False, True])
        def test_both(reverse):
            bases = [BaseApplicationFixture, TestCase][:: -1 if reverse else 1]
            with pytest.raises(Misuse, match="drop TestCase, or keep it alone"):
                type("TestBoth", tuple(bases), {})
        """,
    )
    result.assert_outcomes(passed=4)
