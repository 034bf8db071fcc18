"""Migrations of a shadow, or of none, leave the databases of the settings alone."""

from __future__ import annotations

import importlib
import os
import threading
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from qapla_db.errors import QaplaError, Refused
from qapla_db.migrations import migrate
from qapla_db.migrations.check import check
from qapla_db.migrations.lint import lint
from qapla_db.migrations.rehearsal import rehearse
from qapla_db.migrations.revisions import make_revision
from qapla_db.migrations.shadow import shadow
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import WAIT, Project, rows

WORDS = "connects to the database 'main' at"

TABLES = "op.create_table({!r}, sa.Column('id', sa.Integer, primary_key=True))"

WAYS = {
    "engine of the application that runs": """
        from alembic import context
        app = context.config.attributes["application"]
        with app.dbs["main"].engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM precious"))
    """,
    "session of the application that is imported": """
        from {module} import app
        if app.endpoint is None:
            app.run_command()
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("DELETE FROM precious"))
    """,
    "connection that is open already": """
        import {module}
        with {module}.warm.begin() as connection:
            connection.execute(sa.text("DELETE FROM precious"))
    """,
    "connection that is in use already": """
        import {module}
        {module}.held.execute(sa.text("DELETE FROM precious"))
        {module}.held.commit()
    """,
    "engine of its own": """
        with sa.create_engine({url!r}).begin() as connection:
            connection.execute(sa.text("DELETE FROM precious"))
    """,
    "connection of the driver from the engine": """
        from alembic import context
        app = context.config.attributes["application"]
        connection = app.dbs["main"].engine.raw_connection()
        connection.cursor().execute("DELETE FROM precious")
        connection.commit()
    """,
}


@pytest.fixture
def precious(project: Project, each_url: sa.URL) -> sa.URL:
    """The URL of a database with a row that the second revision would delete, if it could."""
    project.revision("a1", TABLES.format("precious"))
    database = project.database()
    migrate(database)
    with database.transaction() as session:
        session.execute(sa.text("INSERT INTO precious VALUES (1)"))
    return each_url


def write(project: Project, url: sa.URL, way: str) -> None:
    body = WAYS[way].format(module=project.module, url=url.render_as_string(hide_password=False))
    project.revision("a2", f"{dedent(body)}\n{TABLES.format('new')}", after="a1")


@pytest.mark.parametrize("way", WAYS)
def test_shadow(project: Project, precious: sa.URL, way: str) -> None:
    """A revision that reaches for the real database while a shadow is migrated is refused."""
    database = project.database()
    imported: Any = importlib.import_module(project.module)
    imported.warm = database.engine
    with database.engine.connect():
        pass  # one is in the pool
    write(project, precious, way)
    with database.engine.connect() as imported.held:
        with pytest.raises(Refused, match=f"a revision of 'main' {WORDS}"):
            with shadow(database):
                pass
    assert [(1,)] == rows(precious, "SELECT id FROM precious")
    with database.session() as session:  # afterwards it is in reach again
        assert 1 == session.execute(sa.text("SELECT count(*) FROM precious")).scalar_one()


def test_commands(project: Project, precious: sa.URL) -> None:
    """check, revision, rehearse, lint, SQL on paper: none of them reaches the real database."""
    database = project.database()
    with database.engine.connect():
        pass
    write(project, precious, "session of the application that is imported")
    rehearsal = rehearse(database, start="a1", rows=1)
    assert not rehearsal.ok
    assert WORDS in str(rehearsal.as_json())
    for command in (partial(make_revision, database, "third"), partial(check, database)):
        with pytest.raises(QaplaError, match=WORDS):
            command()
    findings = [one.message for one in lint(database)]
    assert any("Refused" in one for one in findings), findings
    with pytest.raises(QaplaError, match=WORDS):
        project.run("upgrade", "a1:a2", "--sql")
    assert [(1,)] == rows(precious, "SELECT id FROM precious")


def test_other_database(make_project: MakeProject, each_url: sa.URL, fresh_url: FreshURL) -> None:
    """The other databases of the application are out of reach too, unless it is in earnest."""
    audit = fresh_url("sqlite")
    project = make_project({"main": each_url, "audit": audit})
    project.revision("b1", TABLES.format("entry"), name="audit")
    migrate(project.database("audit"))
    project.revision(
        "a1",
        """
        from alembic import context
        app = context.config.attributes["application"]
        with app.dbs["audit"].transaction() as session:
            session.execute(sa.text("INSERT INTO entry VALUES (1)"))
        """,
    )
    database = project.database()
    with pytest.raises(Refused, match=r"'audit' at .*into the migrations of 'audit'"):
        with shadow(database):
            pass
    assert [] == rows(audit, "SELECT id FROM entry")
    migrate(database)
    assert [(1,)] == rows(audit, "SELECT id FROM entry")


def test_other_threads(project: Project, precious: sa.URL) -> None:
    """What other threads do with the database meanwhile goes on."""
    project.revision(
        "a2",
        """
        import threading
        from alembic import context
        app = context.config.attributes["application"]
        def add():
            with app.dbs["main"].transaction() as session:
                session.execute(sa.text("INSERT INTO precious VALUES (2)"))
        thread = threading.Thread(target=add)
        thread.start()
        thread.join()
        """,
        after="a1",
    )
    with shadow(project.database()):
        pass
    assert [(1,), (2,)] == rows(precious, "SELECT id FROM precious ORDER BY id")


def test_thread_in_a_statement(project: Project, precious: sa.URL) -> None:
    """A thread that is in a statement while a shadow is migrated is not disturbed."""
    database = project.database()
    with shadow(database):
        pass
    begun, go = threading.Event(), threading.Event()
    found: list[object] = []

    def count() -> None:
        with database.session(read_only=True) as session:
            found.extend(session.execute(sa.text("SELECT count(*) FROM precious")).scalars())

    def wait(*_: object) -> None:  # as a listener that measures times
        if threading.current_thread() is thread:
            begun.set()
            go.wait(WAIT)

    thread = threading.Thread(target=count)
    event.listen(sa.Engine, "before_cursor_execute", wait)
    try:
        thread.start()
        assert begun.wait(WAIT)
        with shadow(database):
            pass
    finally:
        go.set()
        thread.join(WAIT)
        event.remove(sa.Engine, "before_cursor_execute", wait)
    assert [1] == found


BEFORE = "op.execute(\"SELECT 'mysql.user', precious.id FROM precious\")"

NAMING = {
    "table of a schema": "op.add_column('precious', sa.Column('x', sa.Integer), schema={name!r})",
    "text": "op.execute('UPDATE `{name}`.precious SET id = 2')",
    "text without quotes": "op.execute('/* x */ DELETE FROM {name} . precious')",
    "USE": "op.execute('USE {name}')",
    "DROP SCHEMA": "op.execute('DROP SCHEMA IF EXISTS {name}')",
    "OR REPLACE": "op.execute('CREATE OR REPLACE DATABASE {name}')",
    "comment that is executed": "op.execute('/*!40000 DROP DATABASE IF EXISTS `{name}`*/')",
    "GRANT": "op.execute('GRANT SELECT ON `{name}`.* TO CURRENT_USER')",
    "past a backslash": "op.execute(\"UPDATE {name}.precious SET id = 2 WHERE '\\\\'' <> ''\")",
    "another connection": """
        engine = sa.create_engine(op.get_bind().engine.url.set(database=""))
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM {name}.precious"))
    """,
    "another connection, as a whole": """
        engine = sa.create_engine(op.get_bind().engine.url.set(database=""))
        with engine.begin() as connection:
            connection.execute(sa.text("DROP DATABASE {name}"))
    """,
}


@pytest.mark.parametrize("way", NAMING)
def test_name_of_a_database(make_project: MakeProject, fresh_url: FreshURL, way: str) -> None:
    """On MariaDB a revision that names a database changes it nowhere but in that database."""
    url = fresh_url("mariadb")
    project = make_project({"main": url})
    project.revision("a1", TABLES.format("precious"))
    database = project.database()
    database.create()
    migrate(database)
    with database.transaction() as session:
        session.execute(sa.text("INSERT INTO precious VALUES (1)"))
    project.revision("a2", f"{BEFORE}\n{dedent(NAMING[way]).format(name=url.database)}", after="a1")
    with pytest.raises(Refused, match=f"names the database '{url.database}', while its migrations"):
        with shadow(database):
            pass
    assert [(1,)] == rows(url, "SELECT * FROM precious")


NO_NAME = """
    {create}
    table = sa.table("{name}", sa.column("id"))
    op.execute(table.insert().values(id=1))
    op.execute(table.update().where(table.c.id == 1).values(id=2))
    op.execute("DELETE FROM {name} WHERE {name}.id = 3 OR EXTRACT(DAY FROM {name}.id) = 9")
    op.execute('INSERT INTO {name} SELECT 4 WHERE "mail@{name}.example" <> ""')
    op.execute("ALTER DATABASE CHARACTER SET utf8mb4")
    op.execute("ALTER SCHEMA DEFAULT COLLATE utf8mb4_bin")
"""


def test_no_name_of_a_database(make_project: MakeProject, mariadb_url: sa.URL) -> None:
    """On MariaDB a table may be called as a database is, and words may look like names."""
    name = f"qapla_named_{os.getpid()}"
    url = mariadb_url.set(database=name)
    project = make_project({"main": url})
    project.revision("a1", dedent(NO_NAME).format(create=TABLES.format(name), name=name))
    database = project.database()
    database.create()
    try:
        with shadow(database) as made, made.engine.connect() as connection:
            assert [2, 4] == connection.scalars(
                sa.select(sa.text("id")).select_from(sa.table(name))
            ).all()
    finally:
        rows(mariadb_url, f"DROP DATABASE {name}")


ATTACHING = {
    "literal": "op.execute(\"ATTACH '{file}' AS other\")",
    "parameter": "op.get_bind().execute(sa.text('attach :file AS other'), {{'file': '{file}'}})",
    "URI": """
        engine = sa.create_engine("sqlite:///file:{file}?mode=rw&uri=true")
        engine.raw_connection()
    """,
}


@pytest.mark.parametrize("way", ATTACHING)
def test_file(make_project: MakeProject, fresh_url: FreshURL, tmp_path: Path, way: str) -> None:
    """On SQLite the real file is not opened by any name; another file may be."""
    url = fresh_url("sqlite")
    project = make_project({"main": url})
    project.revision("a1", f"op.execute(\"ATTACH '{tmp_path / 'old.sqlite3'}' AS old\")")
    database = project.database()
    with shadow(database):
        pass
    project.revision("a2", dedent(ATTACHING[way]).format(file=url.database), after="a1")
    with pytest.raises(Refused, match=f"a revision of 'main' {WORDS}"):
        with shadow(database):
            pass


OF_POSTGRESQL = {
    "ALTER": "op.execute('ALTER DATABASE {name} SET statement_timeout = 1')",
    "GRANT": "op.execute('GRANT TEMPORARY ON DATABASE postgres, {name} TO PUBLIC')",
    "COMMENT": "op.execute('COMMENT ON DATABASE {name} IS NULL')",
    "role": "op.execute('ALTER ROLE CURRENT_USER IN DATABASE {name} SET statement_timeout = 1')",
    "another connection": """
        engine = sa.create_engine(
            op.get_bind().engine.url.set(database="postgres"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with engine.connect() as connection:
            connection.execute(sa.text('DROP DATABASE {name}'))
    """,
}


@pytest.mark.parametrize("way", OF_POSTGRESQL)
def test_database_of_postgresql(make_project: MakeProject, fresh_url: FreshURL, way: str) -> None:
    """On PostgreSQL a revision that changes or drops the database by its name is refused too."""
    url = fresh_url("postgresql")
    project = make_project({"main": url})
    project.revision("a1", dedent(OF_POSTGRESQL[way]).format(name=url.database))
    database = project.database()
    database.create()
    with pytest.raises(Refused, match=r"names the database '.*current_database"):
        with shadow(database):
            pass
    settings = "SELECT datname FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase"
    assert (url.database,) not in rows(url, settings)


def test_advice_for_postgresql(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """What the refusal advises is possible: a database is altered under whatever name it has."""
    project = make_project({"main": fresh_url("postgresql")})
    statement = "ALTER DATABASE %I SET statement_timeout = 60000"
    project.revision(
        "a1",
        f"""
        op.execute("CREATE TABLE settings (database integer, type integer)")
        op.execute("ALTER TABLE settings ALTER database TYPE bigint")
        op.execute("DO $$ BEGIN EXECUTE format('{statement}', current_database()); END $$")
        """,
    )
    with shadow(project.database()) as made, made.engine.connect() as connection:
        assert "1min" == connection.execute(sa.text("SHOW statement_timeout")).scalar_one()
