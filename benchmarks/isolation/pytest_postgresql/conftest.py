"""A database per test, copied from a template."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pytest_postgresql import factories
from tables import Base
from way import open_session

URL = sa.make_url(os.environ["DATABASE_URL"])


def _engine(database: str) -> sa.Engine:
    return sa.create_engine(URL.set(database=database), poolclass=sa.NullPool)


def load(dbname: str, **others: object) -> None:
    Base.metadata.create_all(_engine(dbname))


server = factories.postgresql_noproc(
    host=str(URL.query["host"]),
    port=5432,
    user=URL.username,
    dbname=URL.database,
    load=[load],
)
postgresql = factories.postgresql("server")


@pytest.fixture(autouse=True)
def isolation(postgresql: Any) -> Iterator[None]:
    engine = _engine(postgresql.info.dbname)
    open_session.configure(bind=engine)
    yield
    engine.dispose()
