"""What is unsafe in revisions while the database is in use."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from qapla_db.errors import MigrationError
from qapla_db.migrations import current, migrate
from qapla_db.migrations.lint import Finding, lint
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project

URLS = {
    "postgresql": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "mysql": "mysql+pymysql://nobody@127.0.0.1:1/none",
    "mariadb": "mariadb+pymysql://nobody@127.0.0.1:1/none",
    "sqlite": "sqlite:////nowhere/none.sqlite3",
}
"""Nothing may be connected to."""

Linted = Callable[..., list[Finding]]

HAS_SQUAWK = bool(shutil.which("squawk", path=os.path.dirname(sys.executable)))


@pytest.fixture
def linted(make_project: MakeProject) -> Linted:
    """Lint a database whose one revision has this body."""
    projects: list[Project] = []

    def run(
        body: str, kind: str = "postgresql", revisions: Iterable[str] | None = None
    ) -> list[Finding]:
        project = make_project({"main": URLS[kind]}, directory=f"project_{len(projects)}")
        projects.append(project)
        project.revision("a1", body)
        return lint(project.database(), revisions)

    return run


def rules(findings: list[Finding]) -> list[str]:
    return [one.rule for one in findings]


def line_of(found: Finding) -> str:
    """The line of the revision's file that a finding is about."""
    assert found.line is not None
    return Path(found.path).read_text().splitlines()[found.line - 1].strip()


ALTER = "op.alter_column('t', 'a', {})"
ADD = "op.add_column('t', sa.Column('a', {}))"
SQL = "op.execute({!r})"

UNSAFE = [
    ("drop-column", "op.drop_column('t', 'a')"),
    ("drop-column", SQL.format("ALTER TABLE t DROP COLUMN IF EXISTS a, ADD b integer")),
    ("drop-column", SQL.format('alter table only "T t"."x" drop "A"')),
    ("drop-table", "op.drop_table('t')"),
    ("drop-table", SQL.format("SELECT 1; -- no\nDROP TABLE IF EXISTS t CASCADE")),
    ("delete-rows", SQL.format("TRUNCATE t")),
    ("delete-rows", SQL.format("DELETE FROM t")),
    ("delete-rows", "op.get_bind().execute(sa.text('DELETE FROM t'))"),
    ("delete-rows", "op.get_bind().execute(sa.table('t').delete())"),
    ("delete-rows", "op.get_context().execute('DELETE FROM t')"),
    ("delete-rows", "op.get_context().connection.execute(sa.text('DELETE FROM t'))"),
    ("rename-column", ALTER.format("new_column_name='b'")),
    ("rename-column", SQL.format("ALTER TABLE t RENAME a TO b")),
    ("rename-table", "op.rename_table('t', 'u')"),
    ("rename-table", SQL.format("ALTER TABLE t RENAME TO u")),
    ("add-not-null", ADD.format("sa.Integer, nullable=False")),
    ("add-not-null", SQL.format("ALTER TABLE t ADD a integer NOT NULL, ADD b integer")),
    ("set-not-null", ALTER.format("nullable=False")),
    ("set-not-null", SQL.format("ALTER TABLE t ALTER COLUMN a SET NOT NULL")),
    ("change-type", ALTER.format("type_=sa.BigInteger, existing_type=sa.Integer()")),
    ("change-type", ALTER.format("type_=sa.String(60)")),
    ("change-type", ALTER.format("type_=sa.String(9), existing_type=sa.String(10)")),
    ("change-type", ALTER.format("type_=sa.Numeric(12, 3), existing_type=sa.Numeric(12, 2)")),
    ("change-type", SQL.format("ALTER TABLE t ALTER a TYPE bigint USING a::bigint")),
    ("rewrite", ADD.format("sa.DateTime, server_default=sa.text('clock_timestamp()')")),
    ("rewrite", ADD.format("sa.Integer, sa.Identity(), nullable=False")),
    ("rewrite", ADD.format("sa.Integer, sa.Computed('b + 1', persisted=True)")),
    ("rewrite", SQL.format("ALTER TABLE t ADD COLUMN a uuid DEFAULT gen_random_uuid()")),
    ("create-index", "op.create_index('i', 't', ['a'])"),
    ("create-index", ADD.format("sa.Integer, index=True")),
    ("create-index", SQL.format("CREATE UNIQUE INDEX ON t (a)")),
    ("drop-index", "op.drop_index('i', table_name='t')"),
    ("drop-index", SQL.format("DROP INDEX i")),
    ("index-in-transaction", "op.create_index('i', 't', ['a'], postgresql_concurrently=True)"),
    ("index-in-transaction", SQL.format("DROP INDEX CONCURRENTLY i")),
    ("foreign-key", "op.create_foreign_key('f', 't', 'u', ['a'], ['id'])"),
    ("foreign-key", ADD.format("sa.Integer, sa.ForeignKey('u.id')")),
    ("foreign-key", SQL.format("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)")),
    ("check", "op.create_check_constraint('c', 't', 'a > 0')"),
    ("check", SQL.format("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)")),
    ("unique-constraint", "op.create_unique_constraint('q', 't', ['a'])"),
    ("unique-constraint", SQL.format("ALTER TABLE t ADD CONSTRAINT q UNIQUE (a)")),
    ("primary-key", "op.create_primary_key('p', 't', ['a'])"),
    ("delete-rows", SQL.format("DELETE FROM t AS x WHERE true RETURNING a")),
    ("delete-rows", SQL.format("WITH x AS (SELECT 1) DELETE FROM t")),
    ("delete-rows", SQL.format("WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT 1")),
    ("update-rows", SQL.format("UPDATE t SET a = 1")),
    ("update-rows", SQL.format("UPDATE ONLY t AS x SET a = (SELECT b FROM u WHERE u.a = x.a)")),
    (
        "update-rows",
        "op.get_bind().execute(sa.table('t', sa.column('a', sa.Text)).update().values(a=''))",
    ),
    ("not-read", SQL.format("DO $$ BEGIN DROP TABLE t; END $$")),
    ("not-read", SQL.format("CALL tidy()")),
    ("update-rows", SQL.format('UPDATE "T" SET "where" = 1')),
    ("lock-table", SQL.format("LOCK TABLE t")),
    ("lock-table", SQL.format("LOCK t IN SHARE ROW EXCLUSIVE MODE NOWAIT")),
    ("rewrite-table", SQL.format("CLUSTER t USING i")),
    ("rewrite-table", SQL.format("CLUSTER")),
    ("rewrite-table", SQL.format("ALTER TABLE t SET LOGGED")),
    ("rewrite-table", SQL.format("ALTER TABLE t SET UNLOGGED")),
    ("rewrite-table", SQL.format("ALTER TABLE t SET TABLESPACE fast")),
    ("reindex", SQL.format("REINDEX TABLE t")),
    ("reindex", SQL.format("REINDEX (VERBOSE) INDEX i")),
    ("in-transaction", SQL.format("REINDEX TABLE CONCURRENTLY t")),
    ("in-transaction", SQL.format("VACUUM t")),
    ("in-transaction", SQL.format("ALTER TABLE t DETACH PARTITION p CONCURRENTLY")),
    ("detach-partition", SQL.format("ALTER TABLE t DETACH PARTITION p")),
    ("refresh-view", SQL.format("REFRESH MATERIALIZED VIEW v")),
    ("disable-trigger", SQL.format("ALTER TABLE t DISABLE TRIGGER ALL")),
    ("disable-trigger", SQL.format("SET LOCAL session_replication_role = replica")),
    ("alter-type", SQL.format("ALTER TYPE mood RENAME VALUE 'a' TO 'b'")),
    ("alter-type", SQL.format("ALTER TYPE mood RENAME TO feeling")),
    ("alter-type", SQL.format("ALTER TYPE pair DROP ATTRIBUTE a CASCADE")),
    ("check", SQL.format("ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0)")),
    ("rename-table", SQL.format("ALTER TABLE t SET SCHEMA old")),
    ("drop-schema", SQL.format("DROP SCHEMA IF EXISTS s CASCADE")),
    ("drop-object", SQL.format("drop type mood cascade")),
    ("drop-object", SQL.format("DROP EXTENSION IF EXISTS citext CASCADE")),
    ("drop-object", SQL.format("DROP MATERIALIZED VIEW v CASCADE")),
    ("drop-object", SQL.format("DROP OWNED BY somebody")),
]


@pytest.mark.parametrize(("rule", "body"), UNSAFE)
def test_unsafe(linted: Linted, rule: str, body: str) -> None:
    """What blocks others or loses data on PostgreSQL is found once, with its line and remedy."""
    (found,) = linted(f"pass\n{body}\npass")
    assert rule == found.rule
    assert body.splitlines()[0] in line_of(found)
    assert found.message
    assert found.remedy


ADDED = "op.create_table('t', sa.Column('id', sa.Integer, primary_key=True))"

SAFE = [
    ADDED,
    ADDED + "\nop.create_index('i', 't', ['id'])\nop.create_unique_constraint('q', 't', ['id'])",
    ADDED + "\nop.rename_table('t', 'u')\nop.create_index('i', 'u', ['id'])\nop.drop_table('u')",
    SQL.format("CREATE TABLE IF NOT EXISTS t (a integer)") + "\nop.drop_column('t', 'a')",
    ADD.format("sa.Integer"),
    ADD.format("sa.Integer, nullable=False, server_default='1'"),
    ADD.format("sa.DateTime, nullable=False, server_default=sa.func.now()"),
    ALTER.format("nullable=True, server_default='x'"),
    ALTER.format("type_=sa.String(60), existing_type=sa.String(50)"),
    ALTER.format("type_=sa.Text(), existing_type=sa.String(50)"),
    ALTER.format("type_=sa.Numeric(12, 2), existing_type=sa.Numeric(10, 2)"),
    ALTER.format("type_=sa.Integer(), existing_type=sa.INTEGER()"),
    "op.create_foreign_key('f', 't', 'u', ['a'], ['id'], postgresql_not_valid=True)",
    "op.create_check_constraint('c', 't', 'a > 0', postgresql_not_valid=True)",
    SQL.format("ALTER TABLE t VALIDATE CONSTRAINT c"),
    SQL.format("ALTER TABLE t ADD CONSTRAINT q UNIQUE USING INDEX i"),
    SQL.format("ALTER TABLE t DROP CONSTRAINT q, ALTER a DROP DEFAULT"),
    SQL.format("UPDATE t SET a = 'DROP TABLE t' WHERE b -- DROP TABLE t"),
    SQL.format("DELETE FROM t WHERE a = 1"),
    SQL.format("DELETE FROM t x USING u WHERE x.a = u.a RETURNING x.a"),
    SQL.format("WITH x AS (SELECT 1) UPDATE t SET a = (SELECT 1) WHERE a IN (SELECT 2)"),
    SQL.format("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1"),
    "\n".join([ADDED, SQL.format("UPDATE t SET id = 1; LOCK TABLE t; TRUNCATE t")]),
    SQL.format("LOCK TABLE t IN ROW EXCLUSIVE MODE"),
    SQL.format("REFRESH MATERIALIZED VIEW CONCURRENTLY v"),
    SQL.format("ALTER TABLE t ENABLE TRIGGER ALL, SET (fillfactor = 70)"),
    SQL.format("SET LOCAL session_replication_role = origin"),
    SQL.format("ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0) NOT VALID"),
    SQL.format("DROP SCHEMA s"),
    SQL.format("DROP FUNCTION f"),
    SQL.format("ALTER TYPE mood ADD VALUE 'happy'"),
    "op.drop_constraint('q', 't')",
    "op.bulk_insert(sa.table('t', sa.column('a')), [{'a': 1}])",
    "with op.get_context().autocommit_block():\n"
    "    op.create_index('i', 't', ['a'], postgresql_concurrently=True)\n"
    "    op.execute('DROP INDEX CONCURRENTLY j')\n"
    "    op.execute('VACUUM (ANALYZE) t')\n"
    "    op.execute('REINDEX (CONCURRENTLY) TABLE t')\n"
    "    op.execute('ALTER TABLE t DETACH PARTITION p CONCURRENTLY')",
    "import qapla_db.migrations.indexes as ours\n"
    "ours.create_index_concurrently('i', 't', ['a'])\nours.drop_index_concurrently('j', 't')",
]


@pytest.mark.parametrize("body", SAFE)
def test_safe(linted: Linted, body: str) -> None:
    """What does not hinder anybody on PostgreSQL is not complained about."""
    assert [] == [one for one in linted(body) if not one.message.endswith("(squawk)")]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("sqlite", "op.drop_table('t')", ["drop-table"]),
        ("sqlite", "op.create_index('i', 't', ['a'])", []),
        ("sqlite", "op.rename_table('t', 'u')", []),
        ("mysql", "op.create_index('i', 't', ['a'])", []),
        ("mysql", SQL.format("CREATE INDEX i ON t (a)"), []),
        ("mysql", SQL.format("CREATE FULLTEXT INDEX i ON t (a)"), ["create-index"]),
        (
            "mariadb",
            "op.create_index('i', 't', ['a'], mariadb_prefix='FULLTEXT')",
            ["create-index"],
        ),
        ("mariadb", "op.create_foreign_key('f', 't', 'u', ['a'], ['id'])", ["foreign-key"]),
        ("mysql", "op.create_unique_constraint('q', 't', ['a'])", []),
        ("mysql", "op.drop_constraint('p', 't', type_='primary')", ["drop-primary-key"]),
        ("sqlite", SQL.format("UPDATE t SET a = 1; VACUUM"), []),
        ("mysql", SQL.format("UPDATE t SET a = 1"), ["update-rows"]),
        ("mysql", SQL.format("UPDATE t SET a = 1 LIMIT 100"), []),
        ("mysql", SQL.format("LOCK TABLES t WRITE, u READ"), ["lock-table", "lock-table"]),
        ("mysql", SQL.format("DROP SCHEMA s"), ["drop-schema"]),
        ("mariadb", SQL.format("ALTER TABLE t ENGINE = InnoDB"), ["rewrite-table"]),
        ("mysql", SQL.format("ALTER TABLE `t` MODIFY `a` bigint"), ["change-type"]),
        ("mysql", SQL.format("ALTER TABLE t CHANGE a b int"), ["change-type", "rename-column"]),
        (
            "mariadb",
            ALTER.format("type_=sa.Enum('x', 'y'), existing_type=sa.Enum('x')"),
            [],
        ),
        (
            "mysql",
            ALTER.format("type_=sa.Enum('y', 'x'), existing_type=sa.Enum('x')"),
            ["change-type"],
        ),
        ("mysql", ALTER.format("type_=sa.String(63), existing_type=sa.String(9)"), []),
        ("mysql", ALTER.format("type_=sa.String(64), existing_type=sa.String(9)"), ["change-type"]),
    ],
)
def test_other_engines(linted: Linted, kind: str, body: str, expected: list[str]) -> None:
    """SQLite: what loses data; MySQL and MariaDB: also what copies a table or stops writers."""
    assert expected == sorted(rules(linted(body, kind)))


BATCH = "with op.batch_alter_table('t') as t:\n    {}"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("sqlite", "t.drop_column('a')", ["drop-column"]),
        ("sqlite", "t.alter_column('a', nullable=False)", []),
        ("sqlite", "t.alter_column('a', type_=sa.Text(), existing_type=sa.Integer())", []),
        (
            "sqlite",
            "t.alter_column('a', type_=sa.Integer(), existing_type=sa.Text())",
            ["change-type"],
        ),
        ("postgresql", "t.alter_column('a', nullable=False)", ["set-not-null"]),
    ],
)
def test_batch(linted: Linted, kind: str, body: str, expected: list[str]) -> None:
    """Operations of a batch are judged one by one, also where the batch needs a database."""
    findings = linted(BATCH.format(body) + "\nop.drop_table('last')", kind)
    assert [*expected, "drop-table"] == rules(findings)
    assert {body, "op.drop_table('last')"} >= {line_of(found) for found in findings}


def test_every_table(linted: Linted) -> None:
    """Of a list of tables each is named; of those that were just made none is."""
    findings = linted(f"{ADDED}\nop.execute('TRUNCATE TABLE ONLY t, ONLY u, v * RESTART IDENTITY')")
    assert ["u", "v"] == [one.message.split()[3] for one in findings if "squawk" not in one.message]


def test_vacuum_full(linted: Linted) -> None:
    """VACUUM FULL is told as what writes the table anew, also outside of the transaction."""
    body = "with op.get_context().autocommit_block():\n    op.execute('VACUUM {} t')"
    for words in ("FULL", "(FULL, ANALYZE)", "FULL ANALYZE"):
        (found,) = linted(body.format(words))
        assert "rewrite-table" == found.rule
        assert found.message.startswith("VACUUM FULL of t ")


def test_ctrl_c(linted: Linted) -> None:
    """Ctrl-C while a revision is looked at ends the command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            linted("import signal; signal.raise_signal(signal.SIGINT)")
    finally:
        signal.signal(signal.SIGINT, before)


class TestComments:
    def test_reason(self, linted: Linted) -> None:
        """A comment with a reason allows its rule in the file, and no other."""
        body = (
            "# qapla: allow drop-column, nobody reads it since 3.2\n"
            "op.drop_column('t', 'a')\nop.drop_table('u')"
        )
        assert ["drop-table"] == rules(linted(body))

    @pytest.mark.parametrize("comment", ["allow drop-column", "allow drop-column,", "allow"])
    def test_no_reason(self, linted: Linted, comment: str) -> None:
        """A comment without a reason allows nothing, and is a finding itself."""
        findings = linted(f"# qapla: {comment}\nop.drop_column('t', 'a')")
        assert ["allow", "drop-column"] == rules(findings)
        assert "reason" in findings[0].message or "names no rule" in findings[0].message

    def test_text_is_no_comment(self, linted: Linted) -> None:
        """What only looks like a comment, inside a text, allows nothing."""
        body = 'text = "# qapla: allow drop-column, no"\nop.drop_column("t", "a")'
        assert ["drop-column"] == rules(linted(body))

    def test_other_comments(self, linted: Linted) -> None:
        """Comments that declare something else are none of lint's business."""
        assert [] == linted("# qapla: changes airport.elevation, feet to metres\npass")


class TestConnections:
    def test_reads(self, linted: Linted) -> None:
        """A data migration that reads rows is looked at to its end, as on an empty table."""
        body = (
            "bind = op.get_bind()\n"
            "for row in bind.execute(sa.text('SELECT\\nid FROM t')).mappings():\n"
            "    bind.execute(sa.text('UPDATE t SET a = :a'), {'a': row['id']})\n"
            "op.drop_column('t', 'a')"
        )
        assert ["drop-column"] == rules(linted(body))

    @pytest.mark.parametrize(
        "body",
        [
            "sa.inspect(op.get_bind())",
            "op.get_bind().execute(sa.text('SELECT 1')).scalar_one()",
            "raise ValueError('not me')",
            "import sys; sys.exit('not me')",
            "raise BaseException('not me')",
        ],
    )
    def test_end(self, linted: Linted, body: str) -> None:
        """Where a revision cannot be followed that is said, with the line."""
        (found,) = linted(f"{body}\nop.drop_column('t', 'a')")
        assert "not-seen" == found.rule
        assert body == line_of(found)

    def test_dialect(self, linted: Linted) -> None:
        """The kind of database can be asked for in the usual ways."""
        body = (
            "if op.get_bind().dialect.name == op.get_context().dialect.name == 'postgresql':\n"
            "    op.drop_column('t', 'a')"
        )
        assert ["drop-column"] == rules(linted(body))
        assert [] == linted(body, "sqlite")


def test_which_revisions(make_project: MakeProject) -> None:
    """All revisions are looked at in the order they run, or only those that are named."""
    project = make_project({"main": URLS["postgresql"]})
    project.revision("b1", "op.drop_table('one')")
    project.revision("a2", "op.drop_table('two')", after="b1")
    project.revision("a3", "op.drop_table('three')", after="a2")
    database = project.database()
    assert ["b1", "a2", "a3"] == [one.revision for one in lint(database)]
    assert ["a2", "a3"] == [one.revision for one in lint(database, ["head", "a2"])]
    assert [] == lint(database, [])
    with pytest.raises(MigrationError, match="Can't locate revision identified by 'c9'"):
        lint(database, ["c9"])


def test_nothing_is_printed(linted: Linted, capfd: pytest.CaptureFixture[str]) -> None:
    """The SQL of a revision does not land on the terminal."""
    linted("op.drop_column('t', 'a')")
    assert ("", "") == tuple(capfd.readouterr())


def test_afterwards_migrations_run(make_project: MakeProject, tmp_path: Path) -> None:
    """Looking changes nothing in how the same revisions are run afterwards."""
    project = make_project({"main": f"sqlite:///{tmp_path}/x.sqlite3"})
    project.revision("a1", ADDED + "\nassert op.get_bind().execute(sa.text('SELECT 5')).scalar()")
    database = project.database()
    assert ["not-seen"] == rules(lint(database))
    assert not database.exists()
    database.create()
    migrate(database)
    assert ("a1",) == current(database)


class TestSquawk:
    pytestmark = pytest.mark.skipif(not HAS_SQUAWK, reason="squawk is not installed")

    def test_besides(self, linted: Linted) -> None:
        """What only squawk finds is there with its rule, line and remedy, and can be allowed."""
        body = "pass\nop.execute('''\n  SELECT 1;\n  ALTER TABLE t ALTER a DROP NOT NULL''')"
        (found,) = linted(body)
        assert "ban-drop-not-null" == found.rule
        assert found.message.endswith("(squawk)")
        assert "op.execute" in line_of(found)
        assert [] == linted(f"# qapla: allow ban-drop-not-null, old programs are gone\n{body}")

    def test_nowhere(self, linted: Linted, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without squawk our own analysis is what there is."""
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        monkeypatch.setenv("PATH", "/nowhere")
        assert [] == linted("op.alter_column('t', 'a', nullable=True)")
        assert ["drop-table"] == rules(linted("op.drop_table('t')"))
