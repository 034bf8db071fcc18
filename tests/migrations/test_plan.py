"""What a migration would do, told before it does it."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from qapla_db.errors import MigrationError
from qapla_db.migrations import current, migrate
from qapla_db.migrations.plan import PlannedStep, plan
from qapla_db.migrations.statement_locks import UNKNOWN, locks_of
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, tables

AIRPORT = (
    "op.create_table('airport', sa.Column('id', sa.Integer, primary_key=True), "
    "sa.Column('name', sa.String(40)))"
)


def steps(project: Project) -> None:
    project.revision("a1", AIRPORT, doc="airports")
    project.revision(
        "a2",
        "op.add_column('airport', sa.Column('city', sa.String(40)))\n"
        "op.execute(\"UPDATE airport SET city = ';'\")",
        after="a1",
        doc="cities\n\nAnd more words.",
    )
    project.revision("a3", "op.create_index('ix', 'airport', ['city'])", after="a2")


def revisions(planned: list[PlannedStep]) -> list[str]:
    return [step.revision for step in planned]


def test_from_where_it_is(project: Project, each_url: sa.URL) -> None:
    """The plan holds the steps from the database's revision, and executes none of them."""
    steps(project)
    database = project.database()
    assert ["a1", "a2", "a3"] == revisions(plan(database))
    assert [] == tables(each_url)
    migrate(database, "a1")
    assert ["a2", "a3"] == revisions(plan(database))
    assert ["a2"] == revisions(plan(database, "+1"))
    assert ["a2"] == revisions(plan(database, "a2"))
    assert ("a1",) == current(database)
    migrate(database)
    assert [] == plan(database)


def test_statements(project: Project) -> None:
    """Each step has its SQL, statement by statement, with the lines that ask for them."""
    steps(project)
    planned = plan(project.database())[1]
    assert "cities" == planned.doc
    add, update = planned.statements
    assert add.sql.startswith("ALTER TABLE airport ADD")
    assert "UPDATE airport SET city = ';'" == update.sql
    assert add.line is not None
    assert add.line + 1 == update.line
    assert f"{add.sql};\n\n{update.sql};" == planned.sql
    assert () == planned.hidden
    assert json.loads(json.dumps(planned.as_json()))["statements"][1]["sql"] == update.sql


def test_it_is_what_runs(project: Project, each_url: sa.URL) -> None:
    """The SQL of the plan makes the schema that the migration makes."""
    steps(project)
    database = project.database()
    engine = sa.create_engine(database.settings.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for step in plan(database):
            for one in step.statements:
                connection.exec_driver_sql(one.sql)
    columns = {str(one["name"]) for one in sa.inspect(engine).get_columns("airport")}
    assert {"id", "name", "city"} == columns
    assert ["ix"] == [one["name"] for one in sa.inspect(engine).get_indexes("airport")]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "mariadb"])
def test_no_database(make_project: MakeProject, fresh_url: FreshURL, kind: str) -> None:
    """A database that does not exist is planned from nothing, and not created."""
    project = make_project({"main": fresh_url(kind)})
    steps(project)
    database = project.database()
    assert ["a1", "a2", "a3"] == revisions(plan(database))
    assert not database.exists()


def test_unknown_target(project: Project) -> None:
    """A target that is none is an error."""
    steps(project)
    with pytest.raises(MigrationError, match="Can't locate revision identified by 'b7'"):
        plan(project.database(), "b7")


def test_hidden(project: Project) -> None:
    """What depends on rows is told, with its line; what is plain beside it is shown."""
    body = (
        "bind = op.get_bind()\n"
        "for row in bind.execute(sa.text('SELECT id FROM airport')):\n"
        "    bind.execute(sa.text('UPDATE airport SET name = 1'))\n"
        "op.execute('UPDATE airport SET name = 2')\n"
        "bind.execute(sa.text('UPDATE airport SET name = :x'), {'x': 'Oslo'})\n"
        "sa.inspect(bind)\n"
        "op.execute('UPDATE airport SET name = 3')\n"
    )
    project.revision("a1", body)
    (step,) = plan(project.database())
    shown = [one.sql for one in step.statements]
    assert ["UPDATE airport SET name = 2", "UPDATE airport SET name = 'Oslo'"] == shown
    reads, ends = step.hidden
    assert "cannot be shown offline: it reads rows" in reads
    assert "cannot be shown offline: it ends here without a database" in ends
    assert "-- line " in step.sql


def test_batch_of_sqlite(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """That SQLite makes a table anew is told, since its SQL depends on the table."""
    project = make_project({"main": fresh_url("sqlite")})
    body = "with op.batch_alter_table('airport') as airport:\n    airport.drop_column('name')"
    project.revision("a1", body)
    (step,) = plan(project.database())
    (note,) = step.hidden
    assert "cannot be shown offline: the table 'airport' is made anew" in note


def test_locks(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """On PostgreSQL each statement says whom it blocks; of tables just made that is nobody."""
    project = make_project({"main": postgresql_database_url})
    steps(project)
    first, second, third = plan(project.database())
    assert [()] == [one.locks for one in first.statements]
    assert [
        "airport: ACCESS EXCLUSIVE, blocks all reads and writes",
        "airport: ROW EXCLUSIVE, blocks writers of the same rows, and schema changes",
    ] == [str(lock) for lock in second.locks]
    assert ["airport: SHARE, blocks all writes; reads go on"] == [str(one) for one in third.locks]


def test_concurrently(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """An index made CONCURRENTLY is shown outside of the transaction, and stops nobody."""
    project = make_project({"main": postgresql_database_url})
    body = (
        "from qapla_db.migrations.indexes import create_index_concurrently\n"
        "create_index_concurrently('ix', 'airport', ['city'])"
    )
    project.revision("a1", body)
    (step,) = plan(project.database())
    create = "CREATE INDEX CONCURRENTLY ix ON airport (city)"
    assert ["COMMIT", create, "BEGIN"] == [one.sql for one in step.statements]
    (lock,) = step.locks
    assert "airport: SHARE UPDATE EXCLUSIVE, blocks schema changes; reads and writes go on" == str(
        lock
    )


STATEMENTS = [
    "ALTER TABLE t ADD COLUMN c integer",
    "ALTER TABLE t ADD COLUMN c integer REFERENCES u (id)",
    "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (id) NOT VALID",
    "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES u (id), ADD c integer",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT v",
    "ALTER TABLE t ALTER COLUMN a SET STATISTICS 100",
    "ALTER TABLE t SET (fillfactor = 70)",
    "ALTER TABLE t ALTER a TYPE bigint",
    "ALTER TABLE t RENAME COLUMN a TO b",
    "ALTER TABLE t RENAME TO z",
    "ALTER TABLE ONLY t ALTER a SET NOT NULL",
    "ALTER TABLE t DISABLE TRIGGER USER",
    "CREATE TABLE n (id integer REFERENCES u)",
    "CREATE TABLE n (id integer)",
    "CREATE UNIQUE INDEX x ON t (a)",
    "DROP TABLE t",
    "DROP TABLE IF EXISTS t, refers",
    "TRUNCATE ONLY t, ONLY refers",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "INSERT INTO u VALUES (1)",
    "COMMENT ON TABLE t IS 'x; DROP TABLE u'",
    "COMMENT ON COLUMN public.t.a IS 'x'",
    "CREATE TYPE mood AS ENUM ('x')",
    "ALTER TYPE kind ADD VALUE 'y'",
    "ALTER INDEX i RENAME TO j",
    "LOCK TABLE t",
    "LOCK TABLE t, u IN SHARE MODE NOWAIT",
    "LOCK TABLE t IN ROW SHARE MODE",
    "CLUSTER t USING i",
    "REINDEX TABLE t",
    "ALTER TABLE t DROP CONSTRAINT v",
    "ALTER TABLE whole DETACH PARTITION part",
    "ALTER TABLE whole ATTACH PARTITION other FOR VALUES IN (2)",
    "CREATE TABLE more PARTITION OF whole FOR VALUES IN (3)",
    "CREATE TABLE more () INHERITS (t)",
    "ALTER TABLE child INHERIT t",
    "DROP TABLE refers",
    "ALTER TABLE refers DROP COLUMN u",
    "ALTER SEQUENCE s RESTART",
    "ALTER SEQUENCE s RENAME TO s2",
    "DROP SEQUENCE s",
    "CREATE OR REPLACE VIEW w AS SELECT id FROM u",
    "ALTER VIEW w RENAME TO w2",
    "DROP VIEW IF EXISTS w",
    "CREATE VIEW new AS SELECT 1",
    "REFRESH MATERIALIZED VIEW m",
    "DROP MATERIALIZED VIEW m",
    "ALTER TYPE kind RENAME VALUE 'x' TO 'y'",
    "DROP TYPE kind",
]

WEAK = ("AccessShareLock", "RowShareLock")


@pytest.mark.parametrize("statement", STATEMENTS)
def test_locks_are_those_that_are_taken(postgresql_database_url: sa.URL, statement: str) -> None:
    """What the plan says a statement locks is what pg_locks says while it is open."""
    engine = sa.create_engine(postgresql_database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for one in (
            "CREATE TABLE u (id integer PRIMARY KEY)",
            "CREATE TABLE t (a integer)",
            "CREATE INDEX i ON t (a)",
            "ALTER TABLE t ADD CONSTRAINT v CHECK (a > 0) NOT VALID",
            "CREATE TYPE kind AS ENUM ('x')",
            "CREATE TABLE whole (a integer) PARTITION BY LIST (a)",
            "CREATE TABLE part PARTITION OF whole FOR VALUES IN (1)",
            "CREATE TABLE other (a integer)",
            "CREATE TABLE child (a integer, CONSTRAINT v CHECK (a > 0))",
            "CREATE TABLE refers (u integer REFERENCES u)",
            "CREATE SEQUENCE s",
            "CREATE VIEW w AS SELECT id FROM u",
            "CREATE MATERIALIZED VIEW m AS SELECT id FROM u",
        ):
            connection.exec_driver_sql(one)
    with engine.connect() as connection:
        oids = {
            oid: name
            for name, oid in connection.exec_driver_sql(
                "SELECT relname, oid FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S') "
                "AND relnamespace = 'public'::regnamespace"
            )
        }
        connection.exec_driver_sql(statement)
        held: dict[str, set[str]] = {}
        for oid, mode in connection.exec_driver_sql(
            "SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid()"
        ):
            if oid in oids and mode not in WEAK:
                held.setdefault(oids[oid], set()).add(mode)
        connection.rollback()
    told = {str(lock.table).removeprefix("public."): lock for lock in locks_of(statement)}
    if REFERRED & {*told}:  # which the statement does not name
        held.pop("u", None)
    assert {*told} - REFERRED == {*held}
    for table, lock in told.items():
        mode = lock.mode.title().replace(" ", "") + "Lock"
        assert table in REFERRED or mode in held[table]


REFERRED = {
    f"what the foreign keys of {one} refer to that go with it" for one in ("t", "u", "refers")
}


UNKNOWN_STATEMENTS = [
    "DO $$ BEGIN DROP TABLE t; END $$",
    "CALL tidy()",
    "SELECT tidy()",
    "WITH x AS (SELECT 1) DELETE FROM t",
    "DROP SCHEMA s CASCADE",
    "DROP TYPE kind CASCADE",
    "DROP OWNED BY somebody",
    "DROP EXTENSION citext",
    "ALTER EXTENSION citext UPDATE",
    "ALTER DOMAIN d ADD CHECK (VALUE > 0)",
    "ALTER TYPE pair ADD ATTRIBUTE a integer CASCADE",
    "CREATE TYPE x AS (a integer); CALL tidy()",
]


@pytest.mark.parametrize("statement", UNKNOWN_STATEMENTS)
def test_not_known(statement: str) -> None:
    """Of a statement that is not known, or takes others with it, that is said."""
    assert (UNKNOWN,) == locks_of(statement)


def test_what_goes_with_it() -> None:
    """What CASCADE drops besides is not known; what the statement names is told before it."""
    for sql in (
        "DROP VIEW w CASCADE",
        "TRUNCATE w CASCADE",
        "ALTER TABLE w DISABLE RULE r; CALL x()",
    ):
        first, last = locks_of(sql)
        assert ("w", "ACCESS EXCLUSIVE") == (first.table, first.mode)
        assert UNKNOWN == last


def test_an_unknown_step(make_project: MakeProject, postgresql_database_url: sa.URL) -> None:
    """A plan says where it does not know what is locked, in words and for machines."""
    project = make_project({"main": postgresql_database_url})
    project.revision("a1", "op.execute('DROP SCHEMA IF EXISTS s CASCADE')")
    (step,) = plan(project.database())
    assert ["perhaps anything: it is not known"] == [str(lock) for lock in step.locks]
    (statement,) = json.loads(json.dumps(step.as_json()))["statements"]
    assert [(None, "not known")] == [(one["table"], one["mode"]) for one in statement["locks"]]
