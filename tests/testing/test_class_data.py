"""Rows that are made once for a class of tests."""

from __future__ import annotations

from tests.testing.projects import Project

TESTS = """
class TestData(ShipFixture):
    made = 0

    @classmethod
    def set_up_data(cls, dbsession):
        TestData.made += 1
        cls.ship = Ship(name="Amar")
        cls.fleet = {"all": [Ship(name="Hegh'ta"), cls.ship]}
        dbsession.add_all([cls.ship, cls.fleet["all"][0]])
        christen("by a task")

    @pytest.mark.parametrize("again", range(3))
    def test_rows(self, again, dbsession):
        assert 5 == len(names())
        self.ship.name = "changed"
        assert self.ship in dbsession and self.ship is self.fleet["all"][1]
        self.fleet["all"].pop()
        dbsession.delete(dbsession.get(Ship, 1))
        dbsession.commit()
        assert 4 == len(names()) and "changed" in names()

    def test_without_a_session(self):
        assert "Amar" == self.ship.name
        assert 2 == len(self.fleet["all"])

    @pytest.mark.real_commit
    @pytest.mark.parametrize("again", range(2))
    def test_really(self, again, dbsession):
        assert 5 == len(names())
        self.ship.name = "changed"
        dbsession.commit()
        assert "changed" in names()

    def test_after_those_that_commit(self, dbsession):
        assert 5 == len(names())
        assert self.ship.name == "Amar" == dbsession.get(Ship, self.ship.id).name

    def test_once(self):
        assert 4 == self.made  # for the class, before and after those that commit

class TestInherited(TestData):
    @classmethod
    def set_up_data(cls, dbsession):
        super().set_up_data(dbsession)
        cls.more = [Ship(name="Ya'Vang")]
        dbsession.add_all(cls.more)

    @pytest.mark.parametrize("again", range(3))
    def test_rows(self, again):
        assert 6 == len(names())
        assert "Ya'Vang" == self.more[0].name

    test_really = test_after_those_that_commit = test_once = None

class TestOthers(ShipFixture):
    def test_nothing_is_left(self):
        assert SEED == names()
        assert not hasattr(self, "ship")
"""


def test_class_data(project: Project) -> None:
    """Every test of a class begins with its rows, whatever another one did, and no other class."""
    output = project.run(TESTS)
    assert "13 passed" in output
    assert ["main", "audit"] == project.migrated


def test_data_that_fails(postgresql_project: Project) -> None:
    """An error in the rows of a class is the error of its tests, and nothing of them is left."""
    output = postgresql_project.run(
        """
        class TestData(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                christen("Amar")
                raise LookupError("on purpose")

            def test_it(self):
                pass

        class TestOthers(ShipFixture):
            def test_nothing_is_left(self):
                assert SEED == names()
        """,
        expect=1,
    )
    assert "1 passed, 1 error" in output
    assert "LookupError: on purpose" in output
