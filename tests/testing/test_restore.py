"""What tests that commit change beside rows, and how all of it is what it was for the next test."""

from __future__ import annotations

import sqlalchemy as sa

from tests.support import plain_engine
from tests.testing.projects import Project

TESTS = """
CHANGES = {changes!r}

def connect():
    return application.dbs["main"].engine.connect().execution_options(
        isolation_level="AUTOCOMMIT", no_parameters=True)

def ask(query):
    with connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]

def execute(*statements):
    with connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)

before = {{}}

@pytest.mark.real_commit
class TestRestored(ShipFixture):
    @pytest.mark.parametrize("what", CHANGES)
    def test_change(self, what):
        change, query = CHANGES[what]
        before[what] = found = ask(query)
        execute(*change if isinstance(change, tuple) else (change,))
        assert found != ask(query), "it changes something"

    # in the order of the changes, each is looked at by the test that follows
"""

MARIADB = {
    "a text that moves to the next column": (
        "UPDATE `50%_post` SET published = draft, draft = ''",
        "SELECT draft, published FROM `50%_post`",
    ),
    "the last digits of a number": (
        "UPDATE `50%_post` SET rate = 0.30000001192092896 + 0.0000001",
        "SELECT rate * 1e0 FROM `50%_post`",
    ),
    "an empty text for none": (
        "UPDATE `50%_post` SET note = ''",
        "SELECT note IS NULL FROM `50%_post`",
    ),
    "an invalid value": (
        "UPDATE IGNORE `50%_post` SET kind = 'no such kind'",
        "SELECT kind + 0 FROM `50%_post`",
    ),
    "two rows that are the same": (
        "INSERT INTO `50%_post` (draft) VALUES ('same'), ('same')",
        "SELECT COUNT(*) FROM `50%_post`",
    ),
    "the last byte of a file": (
        "UPDATE `50%_post` SET file = CONCAT(REPEAT('x', 9000000), 'z')",
        "SELECT MD5(file) FROM `50%_post`",
    ),
    "a place": (
        "UPDATE `50%_post` SET place = POINT(1, 3)",
        "SELECT ST_AsText(place) FROM `50%_post`",
    ),
    "bits": ("UPDATE `50%_post` SET bits = b'0110'", "SELECT bits + 0 FROM `50%_post`"),
    "the character set": (
        "ALTER DATABASE CHARACTER SET latin1",
        "SELECT @@character_set_database",
    ),
    "the comment of the database": (
        "ALTER DATABASE COMMENT = '100% changed'",
        "SELECT schema_comment FROM information_schema.schemata WHERE schema_name = DATABASE()",
    ),
}

POST = """
CREATE TABLE `50%_post` (draft varchar(20) NOT NULL DEFAULT '',
    published varchar(20) NOT NULL DEFAULT '', note text, rate float, kind enum('', 'a'),
    file longblob, place point, bits bit(4), data json, at timestamp NULL, price decimal(30, 20));
INSERT INTO `50%_post` VALUES ('text', '', NULL, 0.3, '', CONCAT(REPEAT('x', 9000000), 'y'),
    POINT(1, 2), b'1001', '{}', '2024-10-27 00:30:00', 0.12345678901234567890);
ALTER DATABASE COMMENT = '100% `ours`'
"""

_OF_DATABASE = "FROM pg_database WHERE datname = current_database()"

POSTGRESQL = {
    "the comment of the database": (
        "COMMENT ON DATABASE {database} IS 'changed'",
        f"SELECT shobj_description(oid, 'pg_database') {_OF_DATABASE}",
    ),
    "a setting of the database": (
        "ALTER DATABASE {database} SET statement_timeout = '77s'",
        "SELECT count(*) FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase "
        "WHERE datname = current_database()",
    ),
    "how many may connect": (
        "ALTER DATABASE {database} CONNECTION LIMIT 50",
        f"SELECT datconnlimit {_OF_DATABASE}",
    ),
    "who may connect": (
        "GRANT CREATE ON DATABASE {database} TO PUBLIC",
        f"SELECT datacl::text {_OF_DATABASE}",
    ),
    "who may create tables": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'",
    ),
    "the comment of the schema": (
        "COMMENT ON SCHEMA public IS 'changed'",
        "SELECT obj_description('public'::regnamespace, 'pg_namespace')",
    ),
    "a language": ("DROP EXTENSION plpgsql", "SELECT count(*) FROM pg_language"),
    "a function of the server": (
        "REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC",
        "SELECT proacl::text FROM pg_proc WHERE proname = 'pg_sleep'",
    ),
    "how texts are searched": (
        "ALTER TEXT SEARCH CONFIGURATION english DROP MAPPING FOR word",
        "SELECT count(*) FROM pg_ts_config_map",
    ),
    "a wrapper": (
        "CREATE FOREIGN DATA WRAPPER wrapper",
        "SELECT count(*) FROM pg_foreign_data_wrapper",
    ),
    "a setting of the session": ("SET timezone = 'Asia/Tokyo'", "SHOW timezone"),
    "the schemas of the session": ("SET search_path = pg_catalog", "SHOW search_path"),
    "a setting of one's own": (
        "SET my.setting = 'changed'",
        "SELECT coalesce(current_setting('my.setting', true), '')",
    ),
    "a prepared statement": (
        "PREPARE mine AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
    ),
    "a channel": ("LISTEN mine", "SELECT pg_listening_channels() UNION ALL SELECT 'end'"),
    "a lock of the session": (
        "SELECT pg_advisory_lock(7)",
        "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()",
    ),
    "a temporary table": (
        "CREATE TEMPORARY TABLE ship (id int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'ship'",
    ),
    "one of many tables": (
        "INSERT INTO t7 SELECT generate_series(1, 3)",
        "SELECT count(*) FROM t7",
    ),
}

AFTER = """
    def test_nothing_is_left(self):
        for what, found in before.items():
            assert found == ask(CHANGES[what][1]), what
        assert SEED == names()
"""


def _run(project: Project, changes: dict[str, tuple[str, str]], before: str) -> None:
    project.write(
        "migrations/main/versions/0002_more.py",
        f"""
        from alembic import op
        revision, down_revision = "0002", "0001"

        def upgrade():
            for statement in {before.split(";")!r}:
                op.get_bind().exec_driver_sql(statement.replace("%", "%%"), ())

        def downgrade():
            pass
        """,
    )
    database = str(project.urls["main"].database)
    told = {
        what: (change.replace("{database}", database), query)
        for what, (change, query) in changes.items()
    }
    text = TESTS.format(changes=told)
    # every change is followed by a look at all that was before
    look = "        for name, found in before.items():\n"
    look += "            assert found == ask(CHANGES[name][1]), name\n"
    text = text.replace(
        "        change, query", f"{look}        assert SEED == names()\n        change, query", 1
    )
    output = project.run(text + AFTER)
    assert f"{len(changes) + 1} passed" in output


def test_mariadb(mariadb_project: Project) -> None:
    """Whatever a test changes in rows and in the database itself is undone on MariaDB."""
    _run(mariadb_project, MARIADB, POST)


def test_postgresql(postgresql_project: Project) -> None:
    """What a test changes in the database, in catalogs and in sessions is undone on PostgreSQL."""
    tables = ";".join(f"CREATE TABLE t{number} AS SELECT 1 AS id" for number in range(12))
    _run(postgresql_project, POSTGRESQL, tables)


SIMILAR = """
class TestSimilar(ShipFixture):
    @pytest.mark.real_commit
    @pytest.mark.parametrize("again", range(2))
    def test_it(self, again):
        assert SEED == names()
        christen("Amar")
"""


def test_a_database_of_a_similar_name(mariadb_project: Project) -> None:
    """Who uses a database whose name has other capitals is left alone."""
    url = mariadb_project.urls["main"]
    other = str(url.database).upper()
    engine = plain_engine(url.set(database=""), poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {other}")
        try:
            connection.exec_driver_sql(f"USE {other}")
            for _ in range(2):
                mariadb_project.run(SIMILAR)
            assert other == connection.exec_driver_sql("SELECT DATABASE()").scalar()
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {other}")
