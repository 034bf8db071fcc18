"""The pytest plugin, found through the entry point ``pytest11``.

Nothing happens in a run that does not use it: not even SQLAlchemy is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qapla_db.testing.fixture import TestRun


@pytest.fixture(scope="session")
def qapla_db_run() -> Iterator[TestRun]:
    """The applications that this run has prepared."""
    from qapla_db.testing.fixture import TestRun

    run = TestRun()
    yield run
    run.close()
