"""The test of all ways, in turns without isolation and in a sandbox."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa
from tables import PLANETS
from way import open_session


@pytest.mark.parametrize("isolated_one", [False, True])
@pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))
def test_commit(number: int, isolated_one: bool) -> None:
    planet = PLANETS[isolated_one]
    with open_session() as session:
        session.add(planet(name=f"planet {number}"))
        session.commit()
        count = session.scalar(sa.select(sa.func.count()).select_from(planet))
    assert count == (1 if isolated_one else number + 1)
