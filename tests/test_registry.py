"""The databases of an application, by name."""

from __future__ import annotations

from typing import Any

import pytest

from qapla_db import Database
from qapla_db.errors import InvalidArgument, UnknownDatabase
from qapla_db.registry import Databases


def test_databases_are_a_mapping() -> None:
    """Registered databases are found by name, in the order of their registration."""
    databases = Databases()
    main, audit = Database("main"), Database("audit")
    databases.add(main)
    databases.add(audit)
    assert {"main": main, "audit": audit} == dict(databases)
    assert ["main", "audit"] == list(databases)
    assert "audit" in databases
    assert databases.get("nope") is None
    assert 2 == len(databases)
    assert "<Databases: main, audit>" == repr(databases)
    databases.remove(main)
    assert ["audit"] == list(databases)


@pytest.mark.parametrize("name", ["nope", None, 7, ["main"], ""])
def test_unknown_name(name: Any) -> None:
    """An unknown name is an error that lists the known ones."""
    databases = Databases()
    databases.add(Database("main"))
    with pytest.raises(UnknownDatabase, match="registered: 'main'") as caught:
        databases[name]
    assert name == caught.value.name
    assert ("main",) == caught.value.known


@pytest.mark.parametrize("name", ["", "two words", "a-b", "9th", "class", "_main", "a.b", 7, None])
def test_name_that_cannot_be_one(name: Any) -> None:
    """A name that cannot be an attribute of the request or an argument is refused."""
    with pytest.raises(InvalidArgument, match="cannot be a database's name"):
        Databases().add(Database(name))


def test_name_that_is_taken() -> None:
    """Two databases of one name are refused."""
    databases = Databases()
    first = Database("main")
    databases.add(first)
    with pytest.raises(InvalidArgument, match="two databases are named 'main'"):
        databases.add(Database("main"))
    assert first is databases["main"]
