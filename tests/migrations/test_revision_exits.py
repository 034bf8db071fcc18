"""A revision that ends the program: it is a failure, whatever it exits with."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qapla_db.errors import MigrationError
from qapla_db.migrations import current, migrate
from qapla_db.migrations.lint import lint
from tests.migrations.project import Project, tables

EXITS = "op.execute('CREATE TABLE t (a int)')\nimport sys; sys.exit(0)"
MESSAGE = r"a1_\.py, line \d+, ends the program \(SystemExit: 0\)"


def test_upgrade_fails(project: Project, each_url: sa.URL) -> None:
    """An upgrade in which a revision calls sys.exit(0) fails, and says what is left."""
    project.revision("a1", EXITS)
    database = project.database()
    with pytest.raises(MigrationError, match=MESSAGE) as caught:
        migrate(database)
    kept = each_url.get_backend_name() in ("mysql", "mariadb")
    assert ("CREATE TABLE t" in str(caught.value)) == kept
    assert ("rolled back" in str(caught.value)) != kept
    assert ("t" in tables(each_url)) == kept
    assert () == current(database)


def test_alembic_fails(project: Project) -> None:
    """The command alembic does not report success, wherever the file ends the program."""
    project.revision("a1", "pass")
    path = project.directory("main") / "versions" / "a1_.py"
    path.write_text(path.read_text() + "\nimport sys\nsys.exit(0)\n")
    done = project.alembic("upgrade", "head")
    assert 0 != done.returncode
    assert "a1_.py, line" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_looking_fails(offline: Project) -> None:
    """Who only looks at the revisions gets an error of ours for a file that cannot be loaded."""
    offline.revision("a1", "pass")
    path = offline.directory("main") / "versions" / "a1_.py"
    path.write_text(path.read_text() + "\nraise SystemExit(0)\n")
    with pytest.raises(MigrationError, match=MESSAGE):
        lint(offline.database())
