"""SQLAlchemy for the scenarios, and those that have words of its own."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from tables import PLANETS as PLANETS
from way import get_engine, open_session


def store(table: Any, name: str = "Qo'noS") -> int:
    with open_session() as session:
        planet = table(name=name)
        session.add(planet)
        session.commit()
        return int(planet.id)


def count(table: Any) -> Any:
    with open_session() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table))


def execute(statement: str) -> None:
    with get_engine().connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(statement)


def scalar(statement: str) -> Any:
    with open_session() as session:
        return session.scalar(sa.text(statement))


def leave_thread() -> None:
    """Do nothing: a thread keeps no connection."""


def reader(table: Any) -> None:
    with open_session() as session:
        session.scalars(sa.select(table)).all()
        store(table)
    assert count(table) == 1


def rollback(table: Any) -> None:
    with open_session() as session:
        store(table)
        session.add(table(name="Qo'noS"))
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()
    assert count(table) == 1


def begin(table: Any) -> None:
    store(table)
    with get_engine().begin() as connection:
        connection.execute(sa.insert(table).values(name="Rura Penthe"))
        found = connection.scalar(sa.select(sa.func.count()).select_from(table))
    assert (found, count(table)) == (2, 2)


def ddl(table: Any) -> None:
    with get_engine().begin() as connection:
        connection.execute(sa.text("CREATE TABLE made_by_a_test (id integer)"))
        connection.execute(sa.insert(table).values(name="Qo'noS"))
    assert count(table) == 1


def after_commit(table: Any) -> None:
    done = []
    with open_session() as session:
        event.listen(session, "after_commit", done.append)
        session.add(table(name="Qo'noS"))
        session.commit()
    assert len(done) == 1


def deferred(table: Any) -> None:
    with open_session() as session:
        session.add(table(name="Qo'noS", parent_id=0))
        session.flush()
        with pytest.raises(sa.exc.IntegrityError):
            session.commit()


def clock(table: Any) -> None:
    found = []
    for _ in range(2):
        found.append(scalar("SELECT now()"))
        time.sleep(0.001)
    assert found[0] < found[1]
