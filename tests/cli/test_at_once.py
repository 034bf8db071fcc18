"""A deployment that starts the same command on several machines at once."""

from __future__ import annotations

import subprocess
import sys

import sqlalchemy as sa

from tests.cli.conftest import CliOf
from tests.cli.test_databases import two_steps
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, rows

PROCESSES = 4


def test_ensure_at_once(make_project: MakeProject, cli_of: CliOf, missing: sa.URL) -> None:
    """Of those who ensure a missing database at once one makes it, and each revision runs once."""
    project = make_project({"main": missing})
    two_steps(project)
    project.revision("a3", "op.execute('INSERT INTO runway (id) VALUES (7)')", after="a2")
    command = [sys.executable, "-W", "error", "-m", "qapla_db", "ensure"]
    cli_of(project)
    running = [
        subprocess.Popen(
            command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(PROCESSES)
    ]
    try:
        outputs = [one.communicate(timeout=WAIT)[0] for one in running]
    finally:
        for one in running:
            one.kill()
            one.communicate(timeout=WAIT)
    assert [0] * PROCESSES == [one.returncode for one in running], outputs
    text = "".join(outputs)
    assert (1, 1) == (text.count("main: created"), text.count("main: a2 -> a3"))
    assert PROCESSES - 1 == text.count("nothing to do, at a3")
    assert [(7,)] == rows(missing, "SELECT id FROM runway")
