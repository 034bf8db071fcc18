from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rotarran_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the reference application."""
    return tmp_path_factory.mktemp("rotarran")


@pytest.fixture(scope="package", autouse=True)
def rotarran_place(postgresql_directory: Path, rotarran_data: Path) -> Iterator[None]:
    """Let the reference application use this run's server, and no folder of the project."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("main", "audit"):
            url = f"embedded:///{postgresql_directory}?database=rotarran_{name}_test_{os.getpid()}"
            patch.setenv(f"QAPLA_TEST_DB_{name.upper()}_URL", url)
        patch.setenv("ROTARRAN_DATA", str(rotarran_data))
        yield
