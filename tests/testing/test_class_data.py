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


def test_containers(postgresql_project: Project) -> None:
    """Copies keep the type of what holds them, and what cannot be copied is handed through."""
    output = postgresql_project.run(
        """
        import threading
        from collections import OrderedDict, defaultdict, deque, namedtuple
        from dataclasses import dataclass, field
        from types import SimpleNamespace

        Pair = namedtuple("Pair", "first second")

        @dataclass(frozen=True)
        class Fleet:
            flagship: Ship
            ships: list = field(default_factory=list)
            size: int = field(default=0, init=False)

        class TestData(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                ship = cls.ship = Ship(name="Amar")
                dbsession.add(ship)
                cls.pair = Pair(ship, [ship])
                cls.fleet = Fleet(ship, [ship])
                cls.by_name = defaultdict(list, {"Amar": [ship]})
                cls.ordered = OrderedDict(ship=ship)
                cls.queue = deque([ship], maxlen=3)
                cls.space = SimpleNamespace(ship=ship)
                cls.lock = threading.Lock()
                cls.guarded = {"lock": cls.lock, "ship": ship}
                cls.generator = (number for number in range(3))
                cls.make = Ship
                cls.double = staticmethod(lambda number: 2 * number)
                cls.call = lambda self, number: (self, number)
                cls.circle = [ship]
                cls.circle.append(cls.circle)

            @pytest.mark.parametrize("again", range(2))
            def test_it(self, again, dbsession):
                ship = self.ship
                assert ship in dbsession and ship is not type(self).ship
                assert Pair(ship, [ship]) == self.pair and isinstance(self.pair, Pair)
                assert Fleet(ship, [ship]) == self.fleet
                assert {"Amar": [ship]} == self.by_name and [] == self.by_name["other"]
                assert OrderedDict(ship=ship) == self.ordered
                assert isinstance(self.ordered, OrderedDict)
                assert [ship] == list(self.queue) and 3 == self.queue.maxlen
                assert ship is self.space.ship
                assert ship is self.guarded["ship"] and self.lock is self.guarded["lock"]
                assert Ship is self.make and 4 == self.double(2) and (self, 1) == self.call(1)
                assert self.circle[1] is self.circle and ship is self.circle[0]
                self.fleet.ships.clear(), self.queue.clear(), self.pair.second.clear()

            def test_generator(self):
                assert [0, 1, 2] == list(self.generator)
        """
    )
    assert "3 passed" in output


def test_instances_of_another_database(postgresql_project: Project) -> None:
    """An instance of another database is a copy in no session, with what its row held."""
    output = postgresql_project.run(
        """
        class TestData(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                with application.dbs["audit"].transaction() as session:
                    cls.expired = Ship(name="Amar")
                    session.add(cls.expired)
                with application.dbs["audit"].session() as session:
                    cls.loaded = [session.get(Ship, 1)]
                with application.dbs["main"].session() as session:
                    cls.own = session.get(Ship, 2)

            @pytest.mark.parametrize("again", range(2))
            def test_it(self, again, dbsession):
                assert self.own in dbsession and "Bortas" == self.own.name
                assert self.expired not in dbsession and "Amar" == self.expired.name
                assert self.loaded[0] not in dbsession and "Rotarran" == self.loaded[0].name
                self.expired.name = "changed"
                dbsession.commit()
                assert SEED == names() and [*SEED, "Amar"] == names("audit")
                with application.dbs["audit"].transaction() as session:
                    session.add(self.expired)
                assert SEED == names() and [*SEED, "changed"] == names("audit")
        """
    )
    assert "2 passed" in output


def test_what_class_data_cannot_be(postgresql_project: Project) -> None:
    """Instances without a row, with changes, and a set_up_data of no class: errors that say so."""
    output = postgresql_project.run(
        """
        class TestData(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                cls.unsaved = {"one": Ship(name="Amar")}
                with application.dbs["main"].session() as session:
                    cls.changed = session.get(Ship, 2)
                cls.changed.name = "changed"

            def test_unsaved(self):
                self.unsaved

            def test_changed(self):
                self.changed

        class TestFunction(ShipFixture):
            def set_up_data(self, dbsession):
                pass

            def test_it(self):
                pass
        """,
        expect=1,
    )
    assert "2 failed, 1 error" in output
    assert "Misuse: TestData.unsaved holds a Ship that is no row" in output
    assert "Misuse: TestData.changed holds a Ship that, or one that it refers to, diff" in output
    assert "Misuse: TestFunction.set_up_data runs once for the class" in output
    assert "TypeError" not in output


def test_data_that_leaves_something(postgresql_project: Project) -> None:
    """A session that the rows of a class leave open is told with the line that opened it."""
    output = postgresql_project.run(
        """
        kept = []

        class TestData(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                kept.append(application.dbs["main"].get_session())
                kept[0].query(Ship).all()

            def test_it(self):
                pass
        """,
        expect=1,
    )
    assert "1 error" in output
    assert "in set_up_data" in output.partition("taken by")[2]


def test_databases_that_the_class_does_not_name(postgresql_project: Project) -> None:
    """Marks of a class are a limit for its rows too, and a typing error in one is told first."""
    project = postgresql_project
    project.write("pytest.ini", "[pytest]\npythonpath = .\nqapla_db_strict = true\n")
    output = project.run(
        """
        from contextlib import suppress

        class Rows(ShipFixture):
            @classmethod
            def set_up_data(cls, dbsession):
                dbsession.add(Ship(name="Amar"))
                with application.dbs["audit"].transaction() as session:
                    session.add(Ship(name="Amar"))

            @pytest.mark.parametrize("again", range(2))
            def test_it(self, again):
                assert [*SEED, "Amar"] == names()

        class TestStrict(Rows):
            pass

        @pytest.mark.database("main")
        class TestMarked(Rows):
            @classmethod
            def set_up_data(cls, dbsession):
                with suppress(AssertionError):
                    super().set_up_data(dbsession)

        @pytest.mark.database("main", "adit")
        class TestTypo(Rows):
            pass

        @pytest.mark.database("main", "audit")
        class TestNamed(Rows):
            @pytest.mark.real_commit
            def test_really(self):
                assert [*SEED, "Amar"] == names() == names("audit")
                christen("Ya'Vang")

        class TestOthers(ShipFixture):
            @pytest.mark.database("main", "audit")
            def test_nothing_is_left(self):
                assert SEED == names() == names("audit")
        """,
        expect=1,
    )
    assert "4 passed, 6 errors in" in output
    for name in ("Strict", "Marked"):
        assert f"DatabaseNotNamed: test_it.py::Test{name} used the database 'audit'" in output
    assert "in set_up_data, and has not named it" in output
    assert "no database is named 'adit'" in output


def test_a_mixin_behind_the_base(postgresql_project: Project) -> None:
    """What a mixin defines and the base would hide is an error that says how to write it."""
    output = postgresql_project.run(
        """
        from qapla_db.errors import Misuse

        class WithShips:
            @classmethod
            def set_up_data(cls, dbsession):
                dbsession.add(Ship(name="Amar"))

        class OfAudit:
            DATABASE_KEY = "audit"

        class TestFirst(WithShips, OfAudit, ShipFixture):
            def test_it(self, dbsession):
                assert [*SEED, "Amar"] == names("audit")
                assert "audit" == dbsession.database_name

        class TestOwn(ShipFixture, WithShips):
            @classmethod
            def set_up_data(cls, dbsession):
                dbsession.add(Ship(name="Ya'Vang"))

            def test_it(self):
                assert [*SEED, "Ya'Vang"] == names()

        def test_behind():
            with pytest.raises(Misuse, match=r"first: class TestBehind\\(WithShips, \\.\\.\\.\\)"):
                class TestBehind(ShipFixture, WithShips):
                    pass
            with pytest.raises(Misuse, match="would not have OfAudit.DATABASE_KEY"):
                class TestKey(ShipFixture, OfAudit):
                    pass
        """
    )
    assert "3 passed" in output


def test_a_key_that_no_database_has(postgresql_project: Project) -> None:
    """A typing error in DATABASE_KEY names the class, and the databases that there are."""
    output = postgresql_project.run(
        """
        class TestSession(ShipFixture):
            DATABASE_KEY = "mian"

            def test_it(self, dbsession):
                pass

            def test_without_a_session(self):
                christen("Amar")

        class TestRows(ShipFixture):
            DATABASE_KEY = "mian"

            @classmethod
            def set_up_data(cls, dbsession):
                pass

            def test_it(self):
                pass
        """,
        expect=1,
    )
    assert "1 passed, 2 errors in" in output
    for name in ("Session", "Rows"):
        assert f"Misuse: DATABASE_KEY of Test{name} names the database 'mian', and" in output
    assert 2 <= output.count("it has 'main' and 'audit'")
