from planets import PlanetApplication

from qapla_db.testing import fixtures_for

fixtures = fixtures_for(PlanetApplication)
isolation = fixtures.isolation
