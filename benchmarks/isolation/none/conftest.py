"""No isolation: the tables are emptied once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import way
from planets import application
from tables import Base

way.ISOLATED = False


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[None]:
    application.run_tests()
    database = application.dbs["main"]
    if not database.exists():
        database.create()
        Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS made_by_a_test"))
        names = ", ".join(Base.metadata.tables)
        connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
    yield
    application.close()
