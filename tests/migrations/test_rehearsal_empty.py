"""Tables and columns that get no rows: a rehearsal does not call them safe."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from qapla_db.migrations.rehearsal import Finding, Rehearsal, rehearse
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project

NEVER = """
op.create_table(
    "never",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("n", sa.Integer, sa.CheckConstraint("n * 0 = 1"), nullable=False),
)
op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))
"""
SHAPES = "op.execute('CREATE TABLE shape (id serial PRIMARY KEY, line path {})')"

# Alembic's comparison of the models says so, too
unknown_types = pytest.mark.filterwarnings("ignore:Did not recognize type")


@pytest.fixture
def postgresql(make_project: MakeProject, fresh_url: FreshURL) -> Project:
    return make_project({"main": fresh_url("postgresql")})


def rehearsed(project: Project, create: str, *comments: str) -> Rehearsal:
    """Rehearse a revision that does nothing; the comments are in the one before."""
    project.revision("a1", "\n".join([*comments, create]), "pass")
    project.revision("a2", "pass", after="a1")
    return rehearse(project.database())


def findings(report: Rehearsal) -> list[Finding]:
    return [one for one in report.findings if one.kind != "models"]


def test_table_without_rows(project: Project) -> None:
    """A table of which no row could be stored is found, with the reason."""
    report = rehearsed(project, NEVER)
    (found,) = findings(report)
    assert ("not rehearsed", "never") == (found.kind, found.table)
    assert "constraint" in found.message.lower()
    assert not report.ok
    assert "FOUND not rehearsed: never got no row" in str(report)


def test_accepted_table_without_rows(project: Project) -> None:
    """That a table is not rehearsed is accepted where a revision says so, also an old one."""
    report = rehearsed(project, NEVER, "# qapla: skips never, it is always empty")
    assert ["it is always empty"] == [one.declared for one in findings(report)]
    assert "declared not rehearsed: never" in str(report)


def test_another_table_is_skipped(project: Project) -> None:
    """Only the table that is named may be without rows."""
    report = rehearsed(project, NEVER, "# qapla: skips other, it is always empty")
    assert [None] == [one.declared for one in findings(report)]


def test_circle_of_tables_that_cannot_be_entered(
    make_project: MakeProject, each_url: sa.URL
) -> None:
    """Tables that refer to each other and must do so get no rows, and are found."""
    create = """
    op.create_table(
        "hen",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("egg_id", sa.Integer, nullable=False),
    )
    op.create_table(
        "egg",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("hen_id", sa.Integer, sa.ForeignKey("hen.id"), nullable=False),
    )
    with op.batch_alter_table("hen") as batch:
        batch.create_foreign_key("hen_egg", "egg", ["egg_id"], ["id"])
    """
    report = rehearsed(make_project({"main": each_url}), create)
    assert {"hen", "egg"} == {one.table for one in findings(report)}
    assert {"not rehearsed"} == {one.kind for one in findings(report)}


def test_rows_of_a_migration(project: Project) -> None:
    """A table that takes no more rows than a migration has stored is not empty."""
    create = """
    table = op.create_table(
        "single",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.CheckConstraint("id = 1"),
    )
    op.bulk_insert(table, [{"id": 1}])
    """
    assert [] == findings(rehearsed(project, create))


@unknown_types
def test_table_of_an_unknown_type(postgresql: Project) -> None:
    """A table with a column that must have a value of an unknown type is found."""
    (found,) = findings(rehearsed(postgresql, SHAPES.format("NOT NULL")))
    assert ("not rehearsed", "shape", None) == (found.kind, found.table, found.column)
    assert "line" in found.message


@unknown_types
@pytest.mark.parametrize(("comment", "reason"), [("", None), ("# qapla: skips shape.line, y", "y")])
def test_column_of_an_unknown_type(postgresql: Project, comment: str, reason: str | None) -> None:
    """A column that holds only NULL, as its type is unknown, is found; it can be declared."""
    (found,) = findings(rehearsed(postgresql, SHAPES.format(""), comment))
    assert ("not rehearsed", "shape", "line") == (found.kind, found.table, found.column)
    assert reason == found.declared


@unknown_types
def test_column_that_the_server_fills(postgresql: Project) -> None:
    """A column of an unknown type that has a default is filled by it."""
    assert [] == findings(
        rehearsed(postgresql, SHAPES.format("DEFAULT path(polygon(box(point(0, 0), point(1, 1))))"))
    )
