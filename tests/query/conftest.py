from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from qapla_db import Database
from tests.query.models import Base
from tests.support import make_application


@pytest.fixture
def database(each_url: sa.URL) -> Iterator[Database]:
    """A database with the tables of the query tests, on each kind of engine in turn."""
    with make_application({"main": each_url}) as app:
        Base.metadata.create_all(app.dbs["main"].engine)
        yield app.dbs["main"]


@pytest.fixture
def memory() -> Iterator[Database]:
    """The same in memory, for what every kind of engine does alike."""
    with make_application({"main": "sqlite://"}) as app:
        Base.metadata.create_all(app.dbs["main"].engine)
        yield app.dbs["main"]
