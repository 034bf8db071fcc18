"""Every other test is in a sandbox: what disturbs the machine disturbs both kinds."""

from __future__ import annotations

import pytest
from planets import PlanetApplication, application

from qapla_db.testing import fixtures_for
from qapla_db.testing.run import TestRun

isolated = fixtures_for(PlanetApplication).application


@pytest.fixture(scope="session", autouse=True)
def prepared(qapla_db_run: TestRun) -> None:
    qapla_db_run.prepare(application)


@pytest.fixture(autouse=True)
def isolation(request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["isolated_one"]:
        request.getfixturevalue("isolated")
