"""What code under test may do, each with a test after it that finds what is left."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from scenarios import AGAIN, ALL
from sqlalchemy import event
from tables import PLANETS
from way import get_engine, open_session

tables = dict(zip(ALL, PLANETS[1:], strict=False))


def store(table: Any, name: str = "Qo'noS") -> int:
    with open_session() as session:
        planet = table(name=name)
        session.add(planet)
        session.commit()
        return int(planet.id)


def count(table: Any) -> Any:
    with open_session() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table))


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


def thread(table: Any) -> None:
    store(table)
    found = []

    def work() -> None:
        found.append(count(table))
        store(table, "Rura Penthe")

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert (found, count(table)) == ([1], 2)


def begin(table: Any) -> None:
    store(table)
    with get_engine().begin() as connection:
        connection.execute(sa.insert(table).values(name="Rura Penthe"))
        found = connection.scalar(sa.select(sa.func.count()).select_from(table))
    assert (found, count(table)) == (2, 2)


def autocommit(table: Any) -> None:
    store(table)
    with get_engine().connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("INSERT INTO table_5 (name) VALUES ('Rura Penthe')")
    assert count(table) == 2


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
        with open_session() as session:
            found.append(session.scalar(sa.select(sa.func.now())))
        time.sleep(0.001)
    assert found[0] < found[1]


def numbers(table: Any) -> None:
    assert store(table) == 1


@pytest.mark.parametrize("name", ALL)
def test_it(name: str) -> None:
    globals()[name](tables[name])


@pytest.mark.parametrize("name", ALL)
def test_left(name: str) -> None:
    table = tables[name]
    assert count(table) == 0
    if name == "ddl":
        with open_session() as session:
            assert session.scalar(sa.text("SELECT to_regclass('made_by_a_test')")) is None
    if name in AGAIN:
        globals()[name](table)
