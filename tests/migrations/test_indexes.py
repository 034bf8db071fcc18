"""Indexes made and dropped while others write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from qapla_db import Database
from qapla_db.errors import MigrationError
from qapla_db.migrations import current, downgrade, indexes, migrate
from qapla_db.migrations.commands import run_alembic
from tests.conftest import FreshURL
from tests.migrations.conftest import MakeProject
from tests.migrations.project import Project, rows
from tests.support import wait_until

IMPORT = "from qapla_db.migrations.indexes import "
CREATE = IMPORT + "create_index_concurrently\ncreate_index_concurrently({})"
DROP = IMPORT + "drop_index_concurrently\ndrop_index_concurrently('ix_airport_city', 'airport')"
CITY = "'ix_airport_city', 'airport', ['city']"
AIRPORT = (
    "op.create_table('airport', sa.Column('id', sa.Integer, primary_key=True), "
    "sa.Column('city', sa.String(40)))"
)
STATE = (
    "SELECT indisvalid, pg_get_indexdef(indexrelid) FROM pg_index "
    "WHERE indexrelid = to_regclass('ix_airport_city')"
)


def with_index(project: Project, arguments: str = CITY) -> Database:
    """A database with airports, before the revision that makes the index."""
    project.revision("a1", AIRPORT, "op.drop_table('airport')")
    project.revision("a2", CREATE.format(arguments), DROP, after="a1")
    database = project.database()
    migrate(database, "a1")
    return database


@pytest.fixture
def postgresql(make_project: MakeProject, postgresql_database_url: sa.URL) -> Project:
    return make_project({"main": postgresql_database_url})


def index_names(url: sa.URL) -> list[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return [str(index["name"]) for index in sa.inspect(engine).get_indexes("airport")]


def test_there_and_back(project: Project, each_url: sa.URL) -> None:
    """The index is made and dropped on every kind of database."""
    database = with_index(project)
    url = database.settings.url
    migrate(database)
    assert ["ix_airport_city"] == index_names(url)
    downgrade(database, "a1")
    assert [] == index_names(url)


def test_again(project: Project) -> None:
    """A run that was killed after it made or dropped the index is finished by the next."""
    database = with_index(project)
    migrate(database)
    run_alembic(database, lambda config: _stamp(config, "a1"))
    migrate(database)
    assert ("a2",) == current(database)
    rows(database.settings.url, _drop_sql(database))
    downgrade(database, "a1")
    assert ("a1",) == current(database)


def _stamp(config: Config, revision: str) -> None:
    command.stamp(config, revision)


def _drop_sql(database: Database) -> str:
    on = " ON airport" if database.settings.url.get_backend_name() in ("mysql", "mariadb") else ""
    return f"DROP INDEX ix_airport_city{on}"


def test_invalid_leftover(postgresql: Project, postgresql_database_url: sa.URL) -> None:
    """What a failed unique build left behind is cleared away, and the index is valid."""
    database = with_index(postgresql, CITY + ", unique=True")
    url = postgresql_database_url
    rows(url, "INSERT INTO airport VALUES (1, 'Oslo'), (2, 'Oslo')")
    with pytest.raises(MigrationError, match=r"could not create unique index"):
        migrate(database)
    assert [False] == [row[0] for row in rows(url, STATE)]
    rows(url, "DELETE FROM airport WHERE id = 2")
    migrate(database)
    assert [True] == [row[0] for row in rows(url, STATE)]
    assert ("a2",) == current(database)


def test_being_built(
    postgresql: Project, postgresql_database_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another connection is building is not dropped under its hands, but waited for."""
    database = with_index(postgresql)
    url = postgresql_database_url
    build = "CREATE INDEX CONCURRENTLY ix_airport_city ON airport (city)"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with ThreadPoolExecutor(1) as pool:
        with engine.connect() as writer:  # whom the builder waits for
            writer.execute(sa.text("INSERT INTO airport VALUES (1, 'Oslo')"))
            others = engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            built = pool.submit(others.execute, sa.text(build))
            wait_until(lambda: rows(url, STATE) != [], "the index is being built")
            with monkeypatch.context() as patch:
                patch.setattr(indexes, "BUILD_WAIT", 0.3)
                with pytest.raises(MigrationError, match=r"is being built by another connection"):
                    migrate(database)
        built.result(60)
        others.close()
    migrate(database)
    assert [True] == [row[0] for row in rows(url, STATE)]


def test_writers_go_on(postgresql: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made CONCURRENTLY: the SQL says so, outside of a transaction."""
    with_index(postgresql)
    postgresql.run("upgrade", "a1:a2", "--sql")
    sql = " ".join(capsys.readouterr().out.split())
    concurrently = "CREATE INDEX CONCURRENTLY ix_airport_city ON airport (city);"
    assert f"COMMIT; {concurrently} BEGIN;" in sql
    postgresql.run("downgrade", "a2:a1", "--sql")
    sql = " ".join(capsys.readouterr().out.split())
    assert "COMMIT; DROP INDEX CONCURRENTLY IF EXISTS ix_airport_city; BEGIN;" in sql


@pytest.mark.parametrize(
    "arguments",
    [
        CITY,
        CITY + ", unique=True",
        CITY + ", postgresql_where=sa.text(\"city <> ''\")",
        "'ix_airport_city', 'airport', [sa.text('lower(city)'), 'id']",
        CITY + ", postgresql_using='hash'",
        CITY + ", postgresql_include=['id']",
        CITY + ", postgresql_ops={'city': 'varchar_pattern_ops'}",
    ],
)
def test_same_and_other(
    postgresql: Project, postgresql_database_url: sa.URL, arguments: str
) -> None:
    """A valid index of the same definition stays as it is; another of that name is refused."""
    database = with_index(postgresql, arguments)
    url = postgresql_database_url
    oid = "SELECT to_regclass('ix_airport_city')::oid"
    migrate(database)
    made = rows(url, oid)
    run_alembic(database, lambda config: _stamp(config, "a1"))
    migrate(database)
    assert made == rows(url, oid)
    run_alembic(database, lambda config: _stamp(config, "a1"))
    rows(url, "DROP INDEX ix_airport_city")
    rows(url, "CREATE INDEX ix_airport_city ON airport (id, city)")
    with pytest.raises(MigrationError, match="it is another one: CREATE INDEX"):
        migrate(database)


def test_other_of_other_engines(make_project: MakeProject, fresh_url: FreshURL) -> None:
    """An index of the name on other columns is refused elsewhere too."""
    project = make_project({"main": fresh_url("sqlite")})
    database = with_index(project)
    rows(database.settings.url, "CREATE INDEX ix_airport_city ON airport (id)")
    with pytest.raises(MigrationError, match="it is another one, of id"):
        migrate(database)


def test_in_the_caller_s_transaction(postgresql: Project, postgresql_database_url: sa.URL) -> None:
    """On a connection that the caller has in a transaction a plain index is made, and undone."""
    database = with_index(postgresql)
    with database.engine.connect() as connection, connection.begin() as transaction:
        run_alembic(database, lambda config: command.upgrade(config, "a2"), connection=connection)
        assert sa.inspect(connection).get_indexes("airport")
        transaction.rollback()
    assert [] == index_names(postgresql_database_url)


def test_schema(postgresql: Project, postgresql_database_url: sa.URL) -> None:
    """An index of a table in a schema is looked for there."""
    url = postgresql_database_url
    rows(url, 'CREATE SCHEMA "Far"')
    rows(url, 'CREATE TABLE "Far"."Air % port" (id integer, city text)')
    arguments = "'ix_airport_city', 'Air % port', ['city'], schema='Far'"
    database = with_index(postgresql, arguments)
    rows(url, "CREATE INDEX ix_airport_city ON airport (id)")
    migrate(database)
    migrate(database)
    found = rows(url, "SELECT schemaname, tablename FROM pg_indexes WHERE indexname LIKE 'ix_%'")
    assert {("public", "airport"), ("Far", "Air % port")} == set(found)
    run_alembic(database, lambda config: _stamp(config, "a1"))
    migrate(database)
    assert ("a2",) == current(database)
