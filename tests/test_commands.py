"""The two commands of the README."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_plain_equivalent(target: str, tmp_path: Path) -> None:
    """What the README gives as the plain form of a command is what make runs."""
    for name in ("Makefile", "pyproject.toml", "requirements", "constraints"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["make", "-n", target],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},  # without the variables of a make that runs the tests
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    quiet = re.compile(r" --quiet| --disable-pip-version-check")
    made = [quiet.sub("", line).strip() for line in done.stdout.splitlines() if "touch" not in line]
    readme = (ROOT / "README.md").read_text()
    lines = [
        line.split(" && ") for line in readme.splitlines() if line.startswith("python3 -m venv")
    ]
    plain = next(line for line in lines if line[1].endswith(f"{target}.txt"))
    # the tests build on what the demo needs, so make installs in two steps
    assert [made[0], *made[-2:]] == plain
