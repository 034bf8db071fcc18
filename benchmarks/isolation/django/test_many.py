"""The test of SQLAlchemy's ways, for Django."""

from __future__ import annotations

import os

import pytest
from django.db import transaction
from planets.models import PLANETS
from way import ISOLATED

Planet = PLANETS[0]


@pytest.mark.parametrize("number", range(int(os.environ["TESTS"])))
def test_commit(number: int) -> None:
    with transaction.atomic():
        Planet.objects.create(name=f"planet {number}")
    assert Planet.objects.count() == (1 if ISOLATED else number + 1)
