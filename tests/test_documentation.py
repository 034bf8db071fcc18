from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def project() -> Iterator[Path]:
    """An empty directory that a database server's own user may pass."""
    with servers.directory("page") as path:
        yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, project: Path) -> None:
    """Every block of code in the documentation runs, in the order of the page."""
    # of pytest's plugins those that a page uses: the others of our tests take time to load
    plugins = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p qapla_db.testing.plugin -p xdist -p pytest_randomly",
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "tests" / "pages.py"), str(page)],
        cwd=project,
        env={**os.environ, **plugins, "PATH": path, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
