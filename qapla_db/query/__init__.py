"""One query interface: what a session and its queries can do beyond SQLAlchemy's own methods.

The rooms are loaded when they are first used: a program that only adds and
commits does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qapla_db.query import bulk as bulk
    from qapla_db.query import changing as changing
    from qapla_db.query import creating as creating
    from qapla_db.query import filters as filters
    from qapla_db.query import keyset as keyset
    from qapla_db.query import pages as pages
    from qapla_db.query import paging as paging
    from qapla_db.query import readers as readers
    from qapla_db.query import reading as reading
    from qapla_db.query import streaming as streaming
    from qapla_db.query import targets as targets

CHUNK = 20_000
"""Rows that ``bulk_insert`` holds in memory and sends at once."""

_ROOMS = frozenset(
    {
        "bulk",
        "changing",
        "creating",
        "filters",
        "keyset",
        "pages",
        "paging",
        "readers",
        "reading",
        "streaming",
        "targets",
    }
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")  # which makes it an attribute
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
