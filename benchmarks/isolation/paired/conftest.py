"""Every other test is in a sandbox: what disturbs the machine disturbs both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from planets import PlanetApplication, application

from qapla_db.testing import fixtures_for
from qapla_db.testing.run import TestRun

isolated = fixtures_for(PlanetApplication).application


@pytest.fixture(scope="session", autouse=True)
def prepared(qapla_db_run: TestRun) -> None:
    qapla_db_run.prepare(application)


@pytest.fixture(autouse=True)
def isolation(request: pytest.FixtureRequest, qapla_db_run: TestRun) -> Iterator[None]:
    if request.node.callspec.params["isolated_one"]:
        request.getfixturevalue("isolated")
        yield
        return
    with ExitStack() as stack:
        for one in qapla_db_run.databases_of(application):
            stack.enter_context(one.lifted())
        yield
