"""Django for the scenarios, and those that have words of its own, where it has the like."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from planets.models import PLANETS as PLANETS


def store(table: Any, name: str = "Qo'noS", **values: object) -> int:
    with transaction.atomic():
        return int(table.objects.create(name=name, **values).pk)


def count(table: Any) -> Any:
    return table.objects.count()


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def scalar(statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def leave_thread() -> None:
    connection.close()


def rollback(table: Any) -> None:
    store(table)
    with pytest.raises(IntegrityError):
        store(table)
    assert count(table) == 1


def begin(table: Any) -> None:
    store(table)
    with transaction.atomic(durable=True):
        table.objects.create(name="Rura Penthe")
    assert count(table) == 2


def ddl(table: Any) -> None:
    execute("CREATE TABLE made_by_a_test (id integer)")
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
