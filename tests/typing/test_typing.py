"""The types that users see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_public_api() -> None:
    """A strict type checker agrees with what public_api.py asserts of the public names."""
    pytest.importorskip("mypy")
    # as for a user, to whom mypy says nothing about the insides of an installed package
    options = ["--strict", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "tests/typing/public_api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
