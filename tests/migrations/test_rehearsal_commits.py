"""Rehearsals of revisions that end the transaction which they run in."""

from __future__ import annotations

import pytest

from qapla_db.migrations.rehearsal import Rehearsal, rehearse
from tests.migrations.project import Project

THING = """
op.create_table(
    "thing",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("m", sa.Integer),
)
"""
FIRST = "op.execute('UPDATE thing SET n = n + 1')"
SECOND = "op.execute('DELETE FROM thing WHERE id = 1')"
COMMIT = "op.get_bind().commit()"
SQL_COMMIT = "op.execute('COMMIT')"
IN_BLOCK = f"with op.get_context().autocommit_block():\n    {FIRST}"
FAILS = "op.execute('UPDATE nowhere SET n = 1')"
OTHER = "op.create_table('other', sa.Column('id', sa.Integer, primary_key=True))"


def rehearsed(project: Project, up: list[str], down: list[str], *, last: bool) -> Rehearsal:
    """Rehearse two revisions: one has this in it, the other one a table."""
    project.revision("a1", THING, "op.drop_table('thing')")
    steps = [("\n".join(up), "\n".join(down)), (OTHER, "op.drop_table('other')")]
    for id, after, step in zip(
        ("a2", "a3"), ("a1", "a2"), steps[:: -1 if last else 1], strict=True
    ):
        project.revision(id, *step, after=after)
    return rehearse(project.database(), start="a1")


def found(report: Rehearsal) -> list[tuple[str, str | None, int]]:
    return [
        (one.kind, one.column, one.rows)
        for one in report.findings
        if one.kind not in ("models", "data after downgrade")
    ]


@pytest.mark.parametrize(
    "up", [[FIRST, SQL_COMMIT, SECOND], [IN_BLOCK, SECOND]], ids=["sql", "block"]
)
def test_commit_in_between(project: Project, up: list[str]) -> None:
    """What was changed before a commit in a revision and after it is found."""
    report = rehearsed(project, up, ["pass"], last=False)
    assert [("lost rows", None, 1), ("changed values", "n", 99)] == found(report)
    assert ("a3",) == report.end


@pytest.mark.parametrize("up", [[FIRST, COMMIT], [COMMIT, FIRST], [FIRST, COMMIT, SECOND]])
def test_commit_of_the_last_revision(project: Project, up: list[str]) -> None:
    """A commit after which the version of a revision is lost fails, as the upgrade will."""
    report = rehearsed(project, up, ["pass"], last=True)
    (failed,) = [one for one in report.findings if one.kind != "models"]
    assert ("failed upgrade", "a3") == (failed.kind, failed.revision)
    assert "autocommit_block" in failed.message


def test_commit_of_a_downgrade(project: Project) -> None:
    """The same of a downgrade: the database is not where it should be."""
    report = rehearsed(project, ["pass"], [FIRST, COMMIT], last=False)
    (failed,) = [one for one in report.findings if one.kind != "models"]
    assert ("failed downgrade", "a2") == (failed.kind, failed.revision)
    assert "is at a2 and not at a1" in failed.message


@pytest.mark.parametrize("up", [[FIRST, COMMIT, FAILS], [f"{IN_BLOCK}\n    {FAILS}"]])
def test_failure_after_a_commit(project: Project, up: list[str]) -> None:
    """A revision that fails after it has committed is a failure like others."""
    report = rehearsed(project, up, ["pass"], last=False)
    (failed,) = [one for one in report.findings if one.kind != "models"]
    assert ("failed upgrade", "a2") == (failed.kind, failed.revision)
    assert "nowhere" in failed.message


@pytest.mark.parametrize("each_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("commit", [COMMIT, SQL_COMMIT])
def test_locks_before_a_commit(project: Project, commit: str) -> None:
    """The locks that a revision held until its own commit are reported."""
    add = "op.add_column('thing', sa.Column('more', sa.Integer))"
    report = rehearsed(project, [add, commit], ["op.drop_column('thing', 'more')"], last=False)
    assert {"thing": "AccessExclusiveLock"} == report.revisions[0].locks
