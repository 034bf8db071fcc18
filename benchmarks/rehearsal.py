"""The rehearsal of an upgrade of 30 tables, with few rows and with many."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from qapla_db import Database
from qapla_db.backends import embedded_server
from qapla_db.migrations.rehearsal import rehearse
from tests import servers
from tests.migrations.project import Project

TABLES = 30
FEW = 100
MANY = 10_000


def create(number: int) -> str:
    """Return what makes a table of ten columns; each but the first refers to the one before."""
    reference = f", sa.ForeignKey('table_{number - 1}.id')" if number else ""
    return f"""
op.create_table(
    "table_{number}",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.String(12), nullable=False, unique=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("amount", sa.Numeric(12, 2)),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("moment", sa.DateTime(timezone=True)),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("data", sa.JSON),
    sa.Column("parent_id", sa.Integer{reference}),
)"""


def write_revisions(project: Project) -> None:
    """Write four revisions: one makes the tables, three change them."""
    made = "".join(create(number) for number in range(TABLES))
    gone = "\n".join(f"op.drop_table('table_{number}')" for number in reversed(range(TABLES)))
    project.revision("r1", made, gone)
    add = "op.add_column('table_3', sa.Column('more', sa.Integer))"
    project.revision("r2", add, "op.drop_column('table_3', 'more')", after="r1")
    project.revision(
        "r3",
        "op.drop_column('table_5', 'note')\nop.execute('UPDATE table_7 SET number = number + 1')",
        "op.execute('UPDATE table_7 SET number = number - 1')\n"
        "op.add_column('table_5', sa.Column('note', sa.Text))",
        after="r2",
    )
    alter = "op.alter_column('table_9', 'number', type_=sa.{})".format
    project.revision("r4", alter("BigInteger"), alter("Integer"), after="r3")


def measure(database: Database, rows: int) -> None:
    """Rehearse from the first revision and print what took how long."""
    began = time.monotonic()
    report = rehearse(database, start="r1", rows=rows)
    took = time.monotonic() - began
    found = {one.kind for one in report.findings}
    assert {"lost column", "changed values"} == found, report
    spent = ", ".join(f"{part} {seconds:.2f}" for part, seconds in report.seconds.items())
    print(f"{TABLES} tables x {rows:>6} rows: {took:6.2f} s ({spent})")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, servers.directory("postgresql") as home:
        options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        server = embedded_server.start(home / "data", options)
        root = Path(directory)
        sys.path.insert(0, directory)
        try:
            project = Project(root, {"main": server.url().set(database="rehearsed")})
            write_revisions(project)
            for rows in (FEW, FEW, MANY):
                measure(project.database(), rows)
            project.close()
        finally:
            embedded_server.stop(home / "data")


if __name__ == "__main__":
    main()
