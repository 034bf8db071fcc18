"""factory_boy and polyfactory with the session of the test, in a project of their own."""

from __future__ import annotations

import pytest

from tests.testing.projects import Project

FACTORIES = """
import factory
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from qapla_db.testing import session_of
from ships import Sailor, Ship

class Boy(factory.alchemy.SQLAlchemyModelFactory):
    class Meta:
        abstract = True
        sqlalchemy_session_factory = session_of("main")
        sqlalchemy_session_persistence = "commit"

class BoyShip(Boy):
    class Meta:
        model = Ship

    name = factory.Sequence("ship {}".format)

class BoySailor(Boy):
    class Meta:
        model = Sailor

    name = factory.Faker("last_name")
    ship = factory.SubFactory(BoyShip, name="Amar")

class Poly(SQLAlchemyFactory):
    __is_base_factory__ = True
    __session__ = session_of("main")
    __set_primary_key__ = False
    __set_foreign_keys__ = False
    __set_relationships__ = True

class PolyShip(Poly):
    __model__ = Ship

class PolySailor(Poly):
    __model__ = Sailor

    @classmethod
    def ship(cls):
        return PolyShip.build(name="Amar")
"""

MODELS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import relationship

class Sailor(Model):
    __tablename__ = "sailor"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    ship_id: Mapped[int] = mapped_column(ForeignKey("ship.id"))
    ship: Mapped[Ship] = relationship()

def view(request):
    if request.method == "POST":
        for ship in request.main.query(Ship):
            ship.name = ship.name.upper()
        request.main.commit()
    return [ship.name for ship in request.main.query(Ship).order_by(Ship.id)]

def append_web_plugins(self):
    self.add_database_web()
    self.config.add_route("ships", "/")
    self.config.add_view(view, route_name="ships", renderer="json")

ShipApplication.append_web_plugins = append_web_plugins
"""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    op.create_table(
        "sailor",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("ship_id", sa.Integer, sa.ForeignKey("ship.id"), nullable=False),
    )

def downgrade():
    op.drop_table("sailor")
"""

HEAD = """
from factories import BoySailor, BoyShip, PolySailor, PolyShip
from ships import Sailor

BOY = BoyShip.create, BoyShip.create_batch, BoySailor.create
POLY = PolyShip.create_sync, PolyShip.create_batch_sync, PolySailor.create_sync
"""

TESTS = """
@pytest.mark.parametrize("create, create_batch, create_sailor", [BOY, POLY])
class Factories(ShipFixture):
    def test_rows(self, dbsession, testapp, create, create_batch, create_sailor):
        ship = create(name="Amar")
        assert ship in dbsession
        assert [*SEED, "Amar"] == names() == testapp.get("/").json
        testapp.post("/")
        assert "AMAR" == ship.name

    def test_batch(self, dbsession, create, create_batch, create_sailor):
        assert SEED == names(), "a test sees what another one made"
        assert 3 == len(create_batch(3)) == len(names()) - len(SEED)

    def test_related(self, dbsession, create, create_batch, create_sailor):
        sailor = create_sailor()
        assert sailor.ship is dbsession.query(Ship).filter_by(name="Amar").one()
        assert [sailor] == dbsession.query(Sailor).filter_by(ship_id=sailor.ship.id).all()

class TestSandbox(Factories):
    pass

@pytest.mark.real_commit
class TestRealCommit(Factories):
    pass
"""


def prepare(project: Project) -> None:
    """Give a project factories, a second table and an application that serves requests."""
    models = (project.path / "ships.py").read_text()
    project.write("ships.py", models + MODELS)
    project.write("factories.py", FACTORIES)
    for name in project.urls:
        project.write(f"migrations/{name}/versions/0002_sailors.py", REVISION)


WEBOB = ("-W", "ignore:'cgi' is deprecated:DeprecationWarning")


def test_session_of_the_test(project: Project) -> None:
    """What factories make is in dbsession, requests see and change it, and it is gone after."""
    prepare(project)
    assert "12 passed" in project.run(HEAD + TESTS, *WEBOB)


@pytest.mark.parametrize("persistence", ["flush", "commit"])
def test_session_that_nobody_closes(postgresql_project: Project, persistence: str) -> None:
    """A factory that opens sessions of its own leaves them behind, and its test is told so."""
    prepare(postgresql_project)
    output = postgresql_project.run(
        HEAD
        + f"""
import factory

kept = []

class Leaking(BoyShip):
    class Meta:
        sqlalchemy_session_factory = lambda: application.dbs["main"].get_session()
        sqlalchemy_session_persistence = "{persistence}"

class TestLeak(ShipFixture):
    def test_it(self):
        kept.append(Leaking.create(name="Amar"))
        assert "Amar" == kept[0].name
""",
        *WEBOB,
        expect=1,
    )
    assert "1 passed, 1 error" in output
    assert "a connection of the database 'main'" in output


def test_factories_in_data_of_a_class_and_in_functions(postgresql_project: Project) -> None:
    """Factories make rows for a class and for test functions too, and nowhere else."""
    prepare(postgresql_project)
    postgresql_project.write(
        "conftest.py",
        """
        from qapla_db.testing import fixtures_for
        from ships import ShipApplication

        some = fixtures_for(ShipApplication, "main")
        my_session, my_app = some.dbsession, some.application
        """,
    )
    output = postgresql_project.run(
        HEAD
        + """
class TestData(ShipFixture):
    @classmethod
    def set_up_data(cls, dbsession):
        cls.sailor = BoySailor.create(name="Martok")
        assert cls.sailor in dbsession

    @pytest.mark.parametrize("again", range(2))
    def test_it(self, dbsession, again):
        assert self.sailor in dbsession and "Amar" == self.sailor.ship.name
        BoyShip.create()
        assert 4 == len(names())

def test_function(my_session):
    assert BoyShip.create(name="Amar") in my_session
    assert [*SEED, "Amar"] == names()

def test_nothing_to_store_in(my_app):
    with pytest.raises(TypeError, match="no test that runs has a session of the database 'main'"):
        BoyShip.create(name="Amar")
""",
        *WEBOB,
    )
    assert "4 passed" in output
