"""Tests: test databases, a sandbox for each, fixtures, counts of statements, migrations.

The names are loaded on first use, so that a run of pytest that has this
package installed, and does not use it, imports nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qapla_db.testing.current import session_of as session_of
    from qapla_db.testing.fixture import BaseApplicationFixture as BaseApplicationFixture
    from qapla_db.testing.functions import fixtures_for as fixtures_for
    from qapla_db.testing.migrations import migration_tests as migration_tests
    from qapla_db.testing.migrations.rehearsal import Rehearse as Rehearse
    from qapla_db.testing.queries import assert_queries as assert_queries
    from qapla_db.testing.queries import no_lazy_loads as no_lazy_loads
    from qapla_db.testing.sandboxes.conflicts import SandboxWarning as SandboxWarning
    from qapla_db.testing.sandboxes.sandbox import sandbox as sandbox

__all__ = [
    "BaseApplicationFixture",
    "Rehearse",
    "SandboxWarning",
    "assert_queries",
    "fixtures_for",
    "migration_tests",
    "no_lazy_loads",
    "sandbox",
    "session_of",
]

_MODULES = {
    "BaseApplicationFixture": "fixture",
    "Rehearse": "migrations.rehearsal",
    "SandboxWarning": "sandboxes.conflicts",
    "assert_queries": "queries",
    "fixtures_for": "functions",
    "migration_tests": "migrations",
    "no_lazy_loads": "queries",
    "sandbox": "sandboxes.sandbox",
    "session_of": "current",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
