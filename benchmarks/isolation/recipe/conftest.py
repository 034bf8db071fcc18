"""The documented recipe.

https://docs.sqlalchemy.org/en/20/orm/session_transaction.html
#joining-a-session-into-an-external-transaction-such-as-for-test-suites
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from tables import Base
from way import engine, open_session


@pytest.fixture(scope="session")
def tables() -> Iterator[None]:
    server = engine.url.set(database="postgres")
    maintenance = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with maintenance.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {engine.url.database}")
        connection.exec_driver_sql(f"CREATE DATABASE {engine.url.database}")
    Base.metadata.create_all(engine)
    yield
    engine.dispose()


@pytest.fixture(autouse=True)
def isolation(tables: None) -> Iterator[None]:
    connection = engine.connect()
    transaction = connection.begin()
    open_session.configure(bind=connection, join_transaction_mode="create_savepoint")
    yield
    open_session.configure(bind=engine)
    transaction.rollback()
    connection.close()
