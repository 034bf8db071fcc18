from __future__ import annotations

import pytest
from planets import PlanetApplication

from qapla_db.testing import fixtures_for

fixtures = fixtures_for(PlanetApplication)
isolation = fixtures.isolation


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.real_commit)
