"""The rehearsal of an upgrade of 30 tables, with few rows and with many."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from qapla_db import Database
from qapla_db.backends import embedded_server
from qapla_db.migrations.rehearsal import rehearse
from tests import servers

TABLES = 30
FEW = 100
MANY = 10_000

_APPLICATION = """\
from qapla_db import Database, DatabaseApplication


class Application(DatabaseApplication):
    settings_package = "rehearsed_settings"

    def append_app_plugins(self):
        self.add_database_app([Database("main", "migrations_main")])


app = Application()
"""
_SETTINGS = """\
def make_settings(settings, paths):
    paths.set("migrations_main", "migrations", "project_root")
    settings["db:main:url"] = {url!r}
"""
_ENV = """\
import sqlalchemy as sa
from qapla_db.env import AlembicEnv
from rehearsed import app

AlembicEnv(app, sa.MetaData(), "main").run()
"""
_REVISION = '''\
"""{id}"""
import sqlalchemy as sa
from alembic import op

revision = {id!r}
down_revision = {after!r}
branch_labels = depends_on = None


def upgrade():
{up}

def downgrade():
{down}
'''


def create(number: int) -> str:
    """Return what makes a table of ten columns; each but the first refers to the one before."""
    reference = f", sa.ForeignKey('table_{number - 1}.id')" if number else ""
    return f"""\
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
    )
"""


def write_project(root: Path, url: sa.URL) -> None:
    """Write an application with four revisions: one makes the tables, three change them."""
    (root / "rehearsed.py").write_text(_APPLICATION)
    (root / "rehearsed_settings").mkdir()
    (root / "rehearsed_settings" / "__init__.py").write_text("")
    text = url.render_as_string(hide_password=False)
    (root / "rehearsed_settings" / "default.py").write_text(_SETTINGS.format(url=text))
    versions = root / "migrations" / "versions"
    versions.mkdir(parents=True)
    (root / "migrations" / "env.py").write_text(_ENV)
    made = "".join(create(number) for number in range(TABLES))
    gone = "".join(f"    op.drop_table('table_{n}')\n" for n in reversed(range(TABLES)))
    changes = [
        ("r1", None, made, gone),
        (
            "r2",
            "r1",
            "    op.add_column('table_3', sa.Column('more', sa.Integer))\n",
            "    op.drop_column('table_3', 'more')\n",
        ),
        (
            "r3",
            "r2",
            "    op.drop_column('table_5', 'note')\n"
            "    op.execute('UPDATE table_7 SET number = number + 1')\n",
            "    op.execute('UPDATE table_7 SET number = number - 1')\n"
            "    op.add_column('table_5', sa.Column('note', sa.Text))\n",
        ),
        (
            "r4",
            "r3",
            "    op.alter_column('table_9', 'number', type_=sa.BigInteger)\n",
            "    op.alter_column('table_9', 'number', type_=sa.Integer)\n",
        ),
    ]
    for id, after, up, down in changes:
        body = _REVISION.format(id=id, after=after, up=up, down=down)
        (versions / f"{id}.py").write_text(body)


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
        try:
            write_project(root, server.url().set(database="rehearsed"))
            sys.path.insert(0, str(root))
            application = importlib.import_module("rehearsed").Application()
            with application.run_command():
                for rows in (FEW, FEW, MANY):
                    measure(application.dbs["main"], rows)
        finally:
            embedded_server.stop(home / "data")


if __name__ == "__main__":
    main()
