"""The errors: one root, messages that travel."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from qapla_db import errors
from qapla_db.errors import InvalidArgument, NotFound, QaplaError, UnknownDatabase, UnknownField

CLASSES = [one for one in vars(errors).values() if inspect.isclass(one)]
ERRORS = [one for one in CLASSES if issubclass(one, QaplaError)]


class Airport:
    pass


def example(cls: type[QaplaError]) -> QaplaError:
    """An error of any class."""
    if cls is UnknownDatabase:
        return UnknownDatabase("nope", ["main", "audit"])
    if cls is NotFound:
        return NotFound(Airport, 7)
    if cls is UnknownField:
        return UnknownField(Airport, ["naem"], ["name"])
    keywords = inspect.signature(cls).parameters.keys() - {"message"}
    return cls("what, where, what next", **dict.fromkeys(keywords, "db:main:url"))


@pytest.mark.parametrize("cls", ERRORS)
def test_error_survives_a_journey(cls: type[QaplaError]) -> None:
    """An error keeps class, message, notes and data from process to process."""
    error = example(cls)
    error.add_note("seen by main")
    copy = pickle.loads(pickle.dumps(error))
    assert cls is type(copy)
    assert vars(error) == vars(copy)
    assert str(error) == str(copy) != ""
    assert repr(error) == repr(copy)


def test_every_error_is_listed() -> None:
    """Every error stands in __all__ and in the tree of the documentation."""
    tree = re.findall(r"── (\w+)", errors.__doc__ or "")
    names = sorted(one.__name__ for one in ERRORS)
    assert names == sorted(errors.__all__) == sorted(["QaplaError", *tree])


def test_unknown_database() -> None:
    """The error of an unknown database reads like a sentence, unlike a KeyError."""
    error = UnknownDatabase("nope", ["main", "audit"])
    assert str(error).startswith("no database is named 'nope'; registered: 'main', 'audit'.")
    assert isinstance(error, KeyError)
    assert "registered: none" in str(UnknownDatabase("nope", []))


def test_errors_are_also_what_python_calls_them() -> None:
    """Misuse is a TypeError, a bad value a ValueError, an unknown name a KeyError."""
    assert issubclass(errors.Misuse, TypeError)
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(errors.SettingInvalid, ValueError)
    assert issubclass(UnknownDatabase, KeyError)
