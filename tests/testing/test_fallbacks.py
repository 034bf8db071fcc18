"""Databases that cannot be copied, or not be restored by their rows: the slower way is as exact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import FreshURL
from tests.support import plain_engine
from tests.testing.projects import REVISION, Project, make_project

TESTS = """
def execute(statement):
    with application.dbs["main"].engine.begin() as connection:
        if statement:
            connection.exec_driver_sql(statement)

class TestShips(ShipFixture):
    @pytest.mark.real_commit
    @pytest.mark.parametrize("again", range(2))
    def test_really(self, again):
        assert SEED == names()
        christen("Amar")
        execute("CHANGE")
        with application.dbs["main"].session() as session:
            assert 3 == session.query(Ship.id).filter_by(name="Amar").scalar()

    def test_sandbox(self):
        assert SEED == names()
        christen("Amar")

    @pytest.mark.real_commit
    def test_really_again(self):
        self.test_really(0)
"""

POSTGRESQL = {
    # of the database beside its content, which no copy takes along
    "a setting": ("ALTER DATABASE {database} SET search_path = public", "", 2),
    "a right": ("GRANT CONNECT ON DATABASE {database} TO PUBLIC", "", 2),
    # what rows alone do not bring back
    "a materialized view": (
        "CREATE MATERIALIZED VIEW seen AS SELECT * FROM ship",
        "REFRESH MATERIALIZED VIEW seen",
        1,
    ),
    "a trigger that always fires": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'no'; END$$; "
        "CREATE TRIGGER refuse BEFORE DELETE ON ship EXECUTE FUNCTION refuse(); "
        "ALTER TABLE ship ENABLE ALWAYS TRIGGER refuse",
        "",
        1,
    ),
    "a large object": ("SELECT lo_from_bytea(0, 'x')", "", 1),
    "a partition": (
        "CREATE TABLE part (id int, name text) PARTITION BY LIST (id); "
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1); "
        "INSERT INTO part VALUES (1, 'one')",
        "DELETE FROM part",
        1,
    ),
    "a generated column": (
        "CREATE TABLE sums (a int, b int GENERATED ALWAYS AS (a * 2) STORED, "
        "c int GENERATED ALWAYS AS IDENTITY); INSERT INTO sums VALUES (2)",
        "DELETE FROM sums",
        1,
    ),
    "a foreign key in a circle": (
        "CREATE TABLE ring (id int PRIMARY KEY, next int NOT NULL REFERENCES ring); "
        "INSERT INTO ring VALUES (1, 2), (2, 1)",
        "DELETE FROM ring",
        1,
    ),
}

MARIADB = {
    "a view": ("CREATE VIEW seen AS SELECT * FROM ship", "", 2),
    "a trigger": ("CREATE TRIGGER more AFTER INSERT ON ship FOR EACH ROW SET @x = 1", "", 2),
    "a generated column": (
        "CREATE TABLE sums (a int, b int AS (a * 2) STORED, KEY (b), `a%b:c` int)",
        "INSERT INTO sums (a) VALUES (2)",
        1,
    ),
    "a foreign key": (
        "CREATE TABLE crew (ship int, FOREIGN KEY (ship) REFERENCES ship (id))",
        "INSERT INTO crew VALUES (1)",
        1,
    ),
}


def _with(project: Project, statement: str) -> None:
    text = statement.format(database=project.urls["main"].database)
    project.write(
        "migrations/main/versions/0002_more.py",
        f'''
        from alembic import op
        revision, down_revision = "0002", "0001"

        def upgrade():
            op.get_bind().exec_driver_sql("""{text.replace("%", "%%")}""")

        def downgrade():
            pass
        ''',
    )


def _tests(change: str) -> str:
    return TESTS.replace("CHANGE", change)


@pytest.mark.parametrize("what", POSTGRESQL)
def test_postgresql(postgresql_project: Project, what: str) -> None:
    """Each test finds what was migrated, whatever that is, on PostgreSQL."""
    statement, change, migrated = POSTGRESQL[what]
    _with(postgresql_project, statement)
    for _ in range(migrated):
        assert "4 passed" in postgresql_project.run(_tests(change))
    assert ("main" == postgresql_project.migrated[-1]) == (migrated > 1)


@pytest.mark.parametrize("what", MARIADB)
def test_mariadb(mariadb_project: Project, what: str) -> None:
    """Each test finds what was migrated, whatever that is, on MariaDB."""
    statement, change, _ = MARIADB[what]
    _with(mariadb_project, statement)
    assert "4 passed" in mariadb_project.run(_tests(change))


def test_no_superuser(postgresql_project: Project) -> None:
    """A user who may create databases and no more has templates and restored databases too."""
    project = postgresql_project
    url = project.urls["main"]
    role = str(url.database)
    engine = plain_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN CREATEDB")
        for name, one in project.urls.items():
            text = one.set(username=role).render_as_string(hide_password=False)
            project.environment[f"SHIPS_TEST_{name}"] = text
        try:
            for _ in range(2):
                assert "4 passed" in project.run(_tests(""))
            assert ["main", "audit"] == project.migrated
        finally:
            project.drop_all()
            connection.exec_driver_sql(f"DROP ROLE {role}")
    engine.dispose()


def test_memory(tmp_path: Path) -> None:
    """SQLite databases in memory are restored as well, though nothing of them is kept."""
    project = make_project(tmp_path, {name: sa.make_url("sqlite://") for name in ("main", "audit")})
    project.environment.update(SHIPS_main="sqlite:///main.db", SHIPS_audit="sqlite:///audit.db")
    for count in (1, 2):
        assert "4 passed" in project.run(_tests(""))
        assert count == project.migrated.count("main")


def test_two_names_of_one_database(fresh_url: FreshURL, tmp_path: Path) -> None:
    """Two names that lead to one database are migrated, copied and restored as one."""
    url = fresh_url("postgresql")
    project = make_project(tmp_path, {"main": url, "audit": url})
    project.write(
        "migrations/audit/versions/0001_ships.py",
        REVISION.format(database="audit").replace('"ship"', '"audit_ship"'),
    )
    try:
        for _ in range(2):
            assert "4 passed" in project.run(_tests("").replace("Amar", "Koraga"))
        assert ["main", "audit"] == project.migrated
        assert 2 == len(project.databases()), "the database and one template"
    finally:
        project.drop_all()


@pytest.mark.parametrize("more", ["", "_" + "long" * 10])
def test_an_unfinished_template(postgresql_url: sa.URL, tmp_path: Path, more: str) -> None:
    """A copy whose making was interrupted is dropped by the next one, also of a long name."""
    names = {one: f"fresh_test_{one}{more}" for one in ("main", "audit")}
    project = make_project(
        tmp_path, {one: postgresql_url.set(database=name) for one, name in names.items()}
    )
    code = "from qapla_db.owners import new_token; print(new_token(), end='')"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    ending = f"_template_new_{ended.stdout}"
    left = names["main"][: 63 - len(ending)] + ending
    engine = plain_engine(postgresql_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {left}")
            assert "4 passed" in project.run(_tests(""))
            look = sa.text("SELECT count(*) FROM pg_database WHERE datname = :name")
            assert 0 == connection.execute(look, {"name": left}).scalar()
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {left}")
        project.drop_all()


LEFT = """
def execute(*statements):
    with application.dbs["main"].engine.connect() as connection:
        by_itself = connection.execution_options(isolation_level="AUTOCOMMIT")
        return [by_itself.exec_driver_sql(statement) for statement in statements][-1]

@pytest.mark.real_commit
class TestLeft(ShipFixture):
    def test_transaction(self):
        execute("BEGIN", "DELETE FROM ship", "PREPARE TRANSACTION '50%% it''s'")

    def test_subscription(self):
        assert SEED == names()
        assert 0 == execute("SELECT count(*) FROM pg_prepared_xacts").scalar()
        execute("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)")

    def test_nothing_is_left(self):
        assert SEED == names()
        assert 0 == execute("SELECT count(*) FROM pg_subscription").scalar()
"""


@pytest.mark.parametrize("what", [None, "a materialized view", "a right"])
def test_what_outlives_sessions(preparing_url: sa.URL, tmp_path: Path, what: str | None) -> None:
    """Prepared transactions and subscriptions are undone, however a database is restored."""
    urls = {one: preparing_url.set(database=f"fresh_test_{one}") for one in ("main", "audit")}
    project = make_project(tmp_path, urls)
    if what is not None:
        _with(project, POSTGRESQL[what][0])
    try:
        assert "3 passed" in project.run(LEFT)
    finally:
        project.drop_all()
