"""What code under test may do, each with a test after it that finds what is left."""

from __future__ import annotations

import threading
from typing import Any

import library
import pytest
from library import PLANETS, count, execute, leave_thread, scalar, store
from scenarios import AGAIN, ALL

tables = dict(zip(ALL, PLANETS[1:], strict=False))


def thread(table: Any) -> None:
    store(table)
    found = []

    def work() -> None:
        found.append(count(table))
        store(table, "Rura Penthe")
        leave_thread()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert (found, count(table)) == ([1], 2)


def autocommit(table: Any) -> None:
    store(table)
    execute("INSERT INTO table_5 (name) VALUES ('Rura Penthe')")
    assert count(table) == 2


def numbers(table: Any) -> None:
    assert store(table) == 1


scenarios = vars(library) | globals()
NAMES = [name for name in ALL if name in scenarios]


@pytest.mark.parametrize("name", NAMES)
def test_it(name: str) -> None:
    scenarios[name](tables[name])


@pytest.mark.parametrize("name", NAMES)
def test_left(name: str) -> None:
    table = tables[name]
    assert count(table) == 0
    if name == "ddl":
        assert scalar("SELECT to_regclass('made_by_a_test')") is None
    if name in AGAIN:
        scenarios[name](table)
