"""What most tests of an application do: the code under test stores, commits and counts."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa
from tables import PLANETS
from way import ISOLATED, open_session

Planet = PLANETS[0]


@pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))
def test_commit(number: int) -> None:
    with open_session() as session:
        session.add(Planet(name=f"planet {number}"))
        session.commit()
        count = session.scalar(sa.select(sa.func.count()).select_from(Planet))
    assert count == (1 if ISOLATED else number + 1)
