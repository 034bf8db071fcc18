"""The scenarios of SQLAlchemy's ways, where Django has something like it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from planets.models import PLANETS
from scenarios import AGAIN, ALL

tables = dict(zip(ALL, PLANETS[1:], strict=False))


def store(table: Any, name: str = "Qo'noS", **values: object) -> int:
    with transaction.atomic():
        return int(table.objects.create(name=name, **values).pk)


def count(table: Any) -> Any:
    return table.objects.count()


def rollback(table: Any) -> None:
    store(table)
    with pytest.raises(IntegrityError):
        store(table)
    assert count(table) == 1


def thread(table: Any) -> None:
    store(table)
    found = []

    def work() -> None:
        found.append(count(table))
        store(table, "Rura Penthe")
        connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert (found, count(table)) == ([1], 2)


def begin(table: Any) -> None:
    store(table)
    with transaction.atomic(durable=True):
        table.objects.create(name="Rura Penthe")
    assert count(table) == 2


def autocommit(table: Any) -> None:
    store(table)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO table_5 (name) VALUES ('Rura Penthe')")
    assert count(table) == 2


def ddl(table: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE made_by_a_test (id integer)")
    store(table)
    assert count(table) == 1


def after_commit(table: Any) -> None:
    done: list[bool] = []
    with transaction.atomic():
        table.objects.create(name="Qo'noS")
        transaction.on_commit(lambda: done.append(True))
    assert done == [True]


def deferred(table: Any) -> None:
    with pytest.raises(IntegrityError):
        store(table, parent_id=0)


def clock(table: Any) -> None:
    found = []
    for number in range(2):
        with transaction.atomic():
            table.objects.create(name=str(number))
            found.append(table.objects.annotate(now=Now()).first().now)
        time.sleep(0.001)
    assert found[0] < found[1]


def numbers(table: Any) -> None:
    assert store(table) == 1


NAMES = [name for name in ALL if name in globals()]


@pytest.mark.parametrize("name", NAMES)
def test_it(name: str) -> None:
    globals()[name](tables[name])


@pytest.mark.parametrize("name", NAMES)
def test_left(name: str) -> None:
    assert count(tables[name]) == 0
    if name == "ddl":
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('made_by_a_test')")
            assert cursor.fetchone() == (None,)
    if name in AGAIN:
        globals()[name](tables[name])
