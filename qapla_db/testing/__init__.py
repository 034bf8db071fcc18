"""Tests: a sandbox for every database, and the base class of test classes.

Both names are loaded on first use, so that a run of pytest that has this
package installed, and does not use it, imports nothing of it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qapla_db.testing.fixture import BaseApplicationFixture as BaseApplicationFixture
    from qapla_db.testing.sandbox import sandbox as sandbox

__all__ = ["BaseApplicationFixture", "sandbox"]


def __getattr__(name: str) -> Any:
    if name == "BaseApplicationFixture":
        from qapla_db.testing.fixture import BaseApplicationFixture

        return BaseApplicationFixture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Door(ModuleType):
    """Keeps the name ``sandbox`` for the function; importing the module of that name takes it."""

    @property
    def sandbox(self) -> Any:
        from qapla_db.testing.sandbox import sandbox

        return sandbox

    @sandbox.setter
    def sandbox(self, module: ModuleType) -> None:
        """Ignore what the import system sets after it has loaded the submodule."""


sys.modules[__name__].__class__ = _Door
