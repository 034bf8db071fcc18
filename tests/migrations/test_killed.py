"""Eight deploys at once, and deploys that are killed: what is left is finished by the next one."""

from __future__ import annotations

import signal
from collections import Counter

import sqlalchemy as sa

from qapla_db.migrations import current, migrate
from qapla_db.record import record_of
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Expression, Project, rows, tables
from tests.migrations.test_lock import MARK, held, start_together

CREATE = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"
INDEX = """
with op.get_context().autocommit_block():
    op.create_index({0!r}, {1!r}, ["id"], postgresql_concurrently=True)
"""

PROCESSES = 8


def test_eight_at_once(project: Project, each_url: sa.URL) -> None:
    """Eight upgrades at once, with CONCURRENTLY among the revisions, apply each of them once."""
    on_postgresql = each_url.get_backend_name() == "postgresql"
    index = INDEX if on_postgresql else "op.create_index({0!r}, {1!r}, ['id'])"
    check_eight(project, each_url, index)


def test_eight_through_a_pooler(
    make_project: MakeProject, postgresql_database_url: sa.URL, pgbouncer_url: sa.URL
) -> None:
    """The same holds through PgBouncer in transaction mode."""
    pooled = pgbouncer_url.set(database=postgresql_database_url.database)
    project = make_project({"main": pooled})
    # its prepared statements belong to server connections, which change
    project.set(options={"connect_args": {"prepare_threshold": None}})
    check_eight(project, postgresql_database_url, INDEX)


def check_eight(project: Project, url: sa.URL, index: str) -> None:
    project.write_env("main", MARK)
    project.revision("a1", CREATE.format("airport"))
    project.revision("a2", index.format("ix_one", "airport"), after="a1")
    project.revision("a3", "op.execute('INSERT INTO airport (id) VALUES (100)')", after="a2")
    project.revision("a4", index.format("ix_two", "airport"), after="a3")
    project.revision("a5", "op.execute('UPDATE airport SET id = id + 100')", after="a4")
    results = start_together(project, PROCESSES, held(url))
    assert [0] * PROCESSES == [code for code, _ in results], results
    lines = Counter(line for _, output in results for line in output.splitlines())
    assert PROCESSES - 1 == lines["main: nothing to do, at a5"]
    assert [1] * 5 == [count for line, count in lines.items() if "->" in line]
    assert [(200,)] == rows(url, "SELECT id FROM airport")
    if url.get_backend_name() == "postgresql":
        query = "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid = 'airport'::regclass"
        assert [(3,)] == rows(url, query)
    with project.database().engine.connect() as connection:
        found = record_of(connection)
    assert found is not None
    assert ["a1", "a2", "a3", "a4", "a5"] == sorted(found.revisions)


# --- kill -9

# a revision is asked for its point before, between and after its statements; the hook is called
# when the version table is written and before that is committed
ENV = """
import os, signal

def die(point):
    if os.environ.get("DIE_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)

def applied(*, step, **_):
    die(f"{step.up_revision_id}:applied")

Model = sa.MetaData()
import builtins
builtins.die = die
"""

ENDED = -signal.SIGKILL
POINTS = ("start", "middle", "end", "applied")


def revisions_that_die(project: Project, *bodies: tuple[str, str]) -> list[str]:
    """Write revisions of two statements each; return the points at which they can be killed."""
    project.write_env("main", ENV, on_version_apply=Expression("applied"))
    points: list[str] = []
    for number, (first, second) in enumerate(bodies, 1):
        revision, after = f"a{number}", f"a{number - 1}" if number > 1 else None
        body = f"die('{revision}:start')\n{first}\ndie('{revision}:middle')\n{second}"
        project.revision(revision, f"{body}\ndie('{revision}:end')", after=after)
        points += [f"{revision}:{point}" for point in POINTS]
    return points


def kill_at(project: Project, point: str) -> None:
    result = project.alembic("upgrade", "head", DIE_AT=point)
    assert ENDED == result.returncode, (point, result.stdout, result.stderr)


BODIES = (
    (CREATE.format("airport"), CREATE.format("runway")),
    (
        "op.execute('INSERT INTO airport (id) VALUES (100)')",
        "op.add_column('airport', sa.Column('code', sa.String(4)))",
    ),
    (
        "op.execute('UPDATE airport SET id = id + 100')",
        "op.execute('INSERT INTO runway (id) VALUES (7)')",
    ),
)


UNDONE_BY_MARIADB = {
    "a1:start",
    "a2:start",
    "a2:middle",
    *(f"a3:{point}" for point in POINTS),
}
"""Where no statement of DDL, which it does not roll back, has run in the revision."""


def test_killed_anywhere(project: Project, each_url: sa.URL) -> None:
    """An upgrade that is killed again and again, at each point, is finished by the next one."""
    for point in revisions_that_die(project, *BODIES):
        if each_url.get_backend_name() != "mariadb" or point in UNDONE_BY_MARIADB:
            kill_at(project, point)
    database = project.database()
    migrate(database)
    assert ("a3",) == current(database)
    assert ["airport", "alembic_version", "runway"] == tables(each_url)
    assert [(200, None)] == rows(each_url, "SELECT id, code FROM airport")
    assert [(7,)] == rows(each_url, "SELECT id FROM runway")
    with database.engine.connect() as connection:
        found = record_of(connection)
    assert found is not None
    assert ["a1", "a2", "a3"] == sorted(found.revisions)


def test_killed_in_the_middle(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """What was finished before a kill stays, and only the rest is run again."""
    project = make_project({"main": postgresql_database_url})
    revisions_that_die(project, *BODIES)
    kill_at(project, "a2:middle")
    assert ("a1",) == current(project.database())
    result = project.alembic("upgrade", "head")
    assert 0 == result.returncode, result.stdout
    assert ["main: a1 -> a2 a2", "main: a2 -> a3 a3"] == [
        line for line in result.stdout.splitlines() if "->" in line
    ]
