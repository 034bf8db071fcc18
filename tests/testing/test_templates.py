"""Test databases are migrated once, and copied by the runs that follow."""

from __future__ import annotations

from tests.testing.projects import REVISION, Project

TESTS = """
class TestShips(ShipFixture):
    @pytest.mark.parametrize("again", range(2))
    def test_seed(self, again):
        assert SEED == names() == names("audit")
        christen("Amar")
        assert [*SEED, "Amar"] == names()
"""


def test_a_run_copies_what_another_one_migrated(project: Project) -> None:
    """The second run does not migrate, and sees what the first one saw."""
    project.run(TESTS)
    assert ["main", "audit"] == project.migrated
    project.run()
    assert ["main", "audit"] == project.migrated
    project.run("", "--db-rebuild")
    assert ["main", "audit"] * 2 == project.migrated


def test_what_a_run_with_a_template_loads(project: Project) -> None:
    """It begins without Alembic, which only migrations need."""
    project.run(TESTS)
    text = """
    class TestShips(ShipFixture):
        def test_it(self):
            import sys
            assert "alembic" not in sys.modules
    """
    project.run(text, "--collect-only")  # the processes of run() have loaded it already
    process = project.start()
    output = process.communicate(timeout=60)[0]
    assert 0 == process.returncode, output


def test_a_template_is_never_stale(project: Project) -> None:
    """Whatever a migration depends on makes a new template, of its database only."""
    path = "migrations/main/versions/0001_ships.py"
    revision = REVISION.format(database="main")
    changes = [
        ("a comment in the revision", lambda: project.write(path, revision + "# more\n")),
        ("a new revision", lambda: project.write(path.replace("0001", "0002"), SECOND)),
        ("a module that it imports", lambda: project.write("helper.py", "NAME = 'Amar'\n")),
        ("a file that it reads", lambda: project.write("name.txt", "Amar")),
    ]
    project.write("helper.py", "NAME = 'Hegh'\n")
    project.write("name.txt", "Hegh")
    project.run(TESTS)
    for count, (what, change) in enumerate(changes, start=2):
        change()
        project.run(
            TESTS.replace("SEED == names() ==", "SEED == names()[:2] ==").replace(
                '[*SEED, "Amar"] == names()', "names()[-1] == 'Amar'"
            )
        )
        assert count == project.migrated.count("main"), what
    assert 1 == project.migrated.count("audit")


SECOND = """
from alembic import op
import helper

revision, down_revision = "0002", "0001"

def upgrade():
    with open(__file__.rpartition("migrations")[0] + "name.txt") as file:
        name = file.read()
    op.execute(f"INSERT INTO ship (name) VALUES ('{helper.NAME}'), ('{name}')")

def downgrade():
    pass
"""


def test_one_template_for_a_database(project: Project) -> None:
    """After a change there is one template for each database still, and others' are left alone."""
    project.run(TESTS)
    before = _templates(project)
    assert 2 == len(before)
    revision = REVISION.format(database="main")
    project.write("migrations/main/versions/0001_ships.py", revision + "\n\n# more\n")
    project.run()
    after = _templates(project)
    assert 2 == len(after)
    assert 1 == len(set(before) & set(after))


def _templates(project: Project) -> list[str]:
    if project.urls["main"].get_backend_name() == "sqlite":
        return [path.name for path in project.path.glob(".*_template/*.sqlite3")]
    return [name for name in project.databases() if "_template_" in name]
