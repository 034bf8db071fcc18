"""What a database says about itself, and what that keeps it from."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.backends import get_backend
from qapla_db.errors import RecordMismatch, Refused
from qapla_db.record import (
    Applied,
    RecordTable,
    check_record,
    is_production,
    record_of,
    recorded_as,
    rewrite_record,
)
from tests.conftest import FreshURL
from tests.support import SmallApplication, make_application, wait_until

NEVER = r"production.*as its own record says.*main@production.*never dropped"


_applications: list[SmallApplication] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No application of a test keeps connections after it."""
    yield
    while _applications:
        _applications.pop().close()


def prepared(
    url: sa.URL | str,
    environment: str = "development",
    name: str = "main",
    endpoint: str = "command",
) -> Database:
    """Return the database of a new application."""
    settings = {f"db:{name}:environment": environment}
    _applications.append(make_application({name: url}, endpoint=endpoint, settings=settings))
    return _applications[-1].dbs[name]


def introduce(database: Database, *names: str, schema: str | None = None) -> None:
    """Write the record that a first migration writes, under these version tables."""
    with database.engine.begin() as connection:
        for name in names or ("alembic_version",):
            table = RecordTable(name, schema)
            table.create(connection)
            table.introduce(connection, database.settings)
            table.add(connection, database.settings, [Applied("a1")])
    database.dispose()


def identities(database: Database) -> list[str]:
    return [one.identity for one in recorded_as(database.settings)]


# --- dropping


def test_recorded_production_stays(each_url: sa.URL) -> None:
    """What is recorded as production is not dropped, whatever settings and caller say."""
    introduce(prepared(each_url, "production"))
    database = prepared(each_url)
    for confirm in (None, "main"):
        with pytest.raises(Refused, match=NEVER if confirm else "not dropped|never dropped"):
            database.drop(confirm=confirm)
    with pytest.raises(Refused, match=NEVER):
        database.check_droppable(confirm="main")
    assert is_production(database)
    assert database.exists()


def test_recorded_production_in_tests(each_url: sa.URL) -> None:
    """Tests that are pointed at a copy of production do not drop it, confirmed or not."""
    introduce(prepared(each_url, " Production"))
    tests = prepared(each_url, "tests", endpoint="tests")
    with pytest.raises(Refused, match=r"production.*say 'tests'.*never dropped"):
        tests.drop(confirm="main")
    assert tests.exists()


def test_recorded_in_any_schema(postgresql_database_url: sa.URL) -> None:
    """A record counts in whatever schema it stands, and of whatever version table."""
    production = prepared(postgresql_database_url, "production")
    with production.engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA ours"))
    introduce(production, "versions", schema="ours")
    database = prepared(postgresql_database_url)
    with pytest.raises(Refused, match=NEVER):
        database.drop(confirm="main")


def test_no_record_is_no_obstacle(each_url: sa.URL) -> None:
    """A database without a record, or of another environment, is dropped as ever."""
    database = prepared(each_url)
    assert not is_production(database)
    assert database.drop(confirm="main")
    assert not database.drop(confirm="main"), "there is none any more"
    database.create()
    introduce(database)
    assert database.drop(confirm="main")


def test_looking_creates_nothing(fresh_url: FreshURL) -> None:
    """Asking a file that is not there what it is leaves it missing."""
    url = fresh_url("sqlite")
    assert not is_production(prepared(url))
    assert not Path(str(url.database)).exists()


def test_dropped_just_now(fresh_url: FreshURL) -> None:
    """A file that somebody drops while its record is asked for is not made anew."""
    database = prepared(fresh_url("sqlite"))
    path = Path(str(database.settings.url.database))
    introduce(database)
    dropped = []

    def drop(*arguments: object) -> None:
        dropped.append(path.exists())
        path.unlink(missing_ok=True)

    sa.event.listen(sa.Engine, "do_connect", drop)
    try:
        assert [] == identities(database)
    finally:
        sa.event.remove(sa.Engine, "do_connect", drop)
    assert dropped[0]
    assert not path.exists()


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_reader_that_is_cut(postgresql_database_url: sa.URL, cuts: int) -> None:
    """Who reads the record and is cut off, as by a drop beside it, reads it again, for a while."""
    database = prepared(postgresql_database_url, "production")
    introduce(database)
    left = [None] * cuts
    kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s"

    def cut(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "relname" in statement and left:
            left.pop()
            other = postgresql_database_url.set(database="postgres")
            engine = sa.create_engine(other, poolclass=sa.NullPool)
            with engine.connect() as killer:
                pid = cursor.connection.info.backend_pid
                killer.exec_driver_sql(kill, (pid,))

    sa.event.listen(sa.Engine, "before_cursor_execute", cut)
    try:
        if cuts == 3:
            with pytest.raises(Refused, match="cannot be read"):
                is_production(prepared(postgresql_database_url))
        else:
            assert is_production(prepared(postgresql_database_url))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", cut)
    assert [] == left


def test_unreachable_server() -> None:
    """Where nobody answers the settings alone decide."""
    url = "postgresql://nobody@127.0.0.1:9/nothing"
    assert not is_production(prepared(url))
    assert is_production(prepared(url, "production"))


@pytest.mark.parametrize(
    "kind, lock",
    [
        ("postgresql", "LOCK TABLE qapla_db_record"),
        ("mariadb", "LOCK TABLES qapla_db_record WRITE"),
    ],
)
def test_locked_record(fresh_url: FreshURL, kind: str, lock: str) -> None:
    """A record that somebody keeps locked is an answer that says so, not a wait for ever."""
    database = prepared(fresh_url(kind))
    database.create()
    introduce(database)
    with database.engine.begin() as connection:
        connection.execute(sa.text(lock))
        with pytest.raises(Refused, match=r"record of the database 'main' .* cannot be read"):
            database.check_droppable(confirm="main")


def test_production_without_connections(postgresql_database_url: sa.URL) -> None:
    """A database that allows no connection is not dropped: what it is cannot be told."""
    introduce(prepared(postgresql_database_url, "production"))
    database = prepared(postgresql_database_url)
    closed = f'ALTER DATABASE "{postgresql_database_url.database}" ALLOW_CONNECTIONS false'
    with database.backend.administration(database.settings.url) as connection:
        connection.exec_driver_sql(closed)
    with pytest.raises(Refused, match=r"'main' .*cannot be read: .*not.* accepting connections"):
        database.drop(confirm="main")
    with pytest.raises(Refused, match="connect to the database and read the table"):
        is_production(database)
    assert database.exists()


def test_production_at_its_limit(postgresql_database_url: sa.URL) -> None:
    """A database whose user is refused by the server, as at a connection limit, stays too."""
    introduce(prepared(postgresql_database_url, "production"))
    maker = prepared(postgresql_database_url)
    role = f"limited_{postgresql_database_url.database}"[:60]
    with maker.engine.begin() as connection:
        connection.execute(sa.text(f'CREATE ROLE "{role}" LOGIN CREATEDB CONNECTION LIMIT 0'))
    try:
        database = prepared(postgresql_database_url.set(username=role, password="x"))
        with pytest.raises(Refused, match=r"cannot be read: .*FATAL"):
            database.drop(confirm="main")
    finally:
        with maker.engine.begin() as connection:
            connection.execute(sa.text(f'DROP ROLE "{role}"'))
    assert maker.exists()


def test_production_in_a_locked_file(fresh_url: FreshURL) -> None:
    """A file that somebody keeps locked is not dropped."""
    url = fresh_url("sqlite")
    introduce(prepared(url, "production"))
    database = prepared(url)
    with closing(sqlite3.connect(str(url.database), isolation_level=None)) as locking:
        locking.execute("PRAGMA journal_mode = DELETE")
        locking.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Refused, match=r"'main' .*cannot be read: database is locked"):
            database.drop(confirm="main")
    assert Path(str(url.database)).exists()


@pytest.mark.parametrize("endpoint", ["command", "tests"])
@pytest.mark.parametrize(
    "environment, name", [("development", "billing"), ("staging", "main")], ids=["name", "env"]
)
def test_recorded_as_another(each_url: sa.URL, environment: str, name: str, endpoint: str) -> None:
    """A database of another name or environment is not dropped, confirmed or not."""
    introduce(prepared(each_url, environment, name))
    database = prepared(each_url, endpoint=endpoint)
    with pytest.raises(RecordMismatch, match=f"nothing was done: .* as {name}@{environment}"):
        database.drop(confirm="main" if endpoint == "command" else None)
    assert database.exists()


def of_two(url: sa.URL | str, environment: str = "development") -> SmallApplication:
    """Return an application of which two names, main and audit, are on one database."""
    settings = {"db:audit:environment": environment}
    _applications.append(make_application({"main": url, "audit": url}, settings=settings))
    return _applications[-1]


def test_recorded_under_two_names(each_url: sa.URL) -> None:
    """The records of all names of a database are right when each is as its settings say."""
    app = of_two(each_url, "staging")
    introduce(app.dbs["main"])
    introduce(app.dbs["audit"], "alembic_version_audit")
    with pytest.raises(RecordMismatch, match="audit@staging"):
        prepared(each_url).drop(confirm="main")
    assert app.dbs["main"].drop(confirm="main")


def test_production_under_another_name(each_url: sa.URL) -> None:
    """A database that is production under one of its names is dropped under none."""
    app = of_two(each_url, " Production")
    with pytest.raises(Refused, match=r"is also 'audit'.*'db:audit:environment'.*never dropped"):
        app.dbs["main"].drop(confirm="main")
    assert app.dbs["main"].exists()


@pytest.mark.parametrize(
    "kind, argument", [("postgresql", "dbname"), ("postgresql", "host"), ("mariadb", "database")]
)
def test_connect_args_that_lead_elsewhere(fresh_url: FreshURL, kind: str, argument: str) -> None:
    """A database is not dropped while its options lead connections to another one."""
    url, other = fresh_url(kind), fresh_url(kind)
    introduce_in = prepared(url)
    introduce_in.create()
    introduce(prepared(url, "production"))
    prepared(other).create()
    value = url.query.get("host") if argument == "host" else other.database
    options = {"db:main:options": {"connect_args": {argument: value}}}
    _applications.append(make_application({"main": url}, settings=options))
    with pytest.raises(Refused, match=f"{argument} in 'connect_args' of 'db:main:options'"):
        _applications[-1].dbs["main"].drop(confirm="main")
    assert introduce_in.exists()


def test_read_once(each_url: sa.URL) -> None:
    """Whether a database may be dropped costs one connection to it, for all that is asked."""
    database = prepared(each_url)
    introduce(database)
    seen: list[object] = []

    def note(dbapi_connection: object, record: object) -> None:
        seen.append(dbapi_connection)

    sa.event.listen(sa.pool.Pool, "connect", note)
    try:
        database.check_droppable(confirm="main")
    finally:
        sa.event.remove(sa.pool.Pool, "connect", note)
    assert 1 == len(seen)


# --- names and environments


def test_check(each_url: sa.URL) -> None:
    """A database of another name or environment is told apart; before a record there is none."""
    database = prepared(each_url)
    others = [prepared(each_url, "staging"), prepared(each_url, name="audit")]
    with database.engine.connect() as connection:
        assert record_of(connection) is None
        for one in (database, *others):
            check_record(connection, one.settings)
    introduce(database)
    with database.engine.connect() as connection:
        check_record(connection, database.settings)
        for one, wanted in zip(others, ("main@staging", "audit@development"), strict=True):
            with pytest.raises(RecordMismatch, match=f"main@development.*say {wanted}"):
                check_record(connection, one.settings)
        found = record_of(connection)
    assert found is not None
    assert ("main@development", {"a1": Applied("a1")}) == (found.identity, found.revisions)


# --- making it right


def test_rewrite(each_url: sa.URL) -> None:
    """A copy becomes what the settings say, and can then be dropped."""
    introduce(prepared(each_url, "production"))
    database = prepared(each_url)
    rewrite_record(database, confirm="main@production")
    assert ["main@development"] == identities(database)
    assert [{"a1": Applied("a1")}] == [one.revisions for one in recorded_as(database.settings)]
    assert database.drop(confirm="main")


@pytest.mark.parametrize("confirm", ["", "main", "main@development", "audit@production"])
def test_rewrite_of_something_else(each_url: sa.URL, confirm: str) -> None:
    """Who does not know what the record says changes nothing."""
    introduce(prepared(each_url, "production"))
    database = prepared(each_url)
    with pytest.raises(Refused, match=r"not changed: it says main@production"):
        rewrite_record(database, confirm=confirm)
    assert ["main@production"] == identities(database)


def test_rewrite_without_a_record(each_url: sa.URL) -> None:
    """Without a record there is nothing to make right."""
    with pytest.raises(Refused, match="it says nothing"):
        rewrite_record(prepared(each_url), confirm="main@production")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_rewrite_of_what_is_in_use(fresh_url: FreshURL, kind: str) -> None:
    """A database that others are connected to may be production itself: it stays recorded."""
    url = fresh_url(kind)
    backend = get_backend(url)
    assert backend is not None
    backend.create(backend.complete(url), None)
    production = prepared(url, "production")
    introduce(production)
    database = prepared(url)
    with production.engine.connect(), pytest.raises(Refused, match="1 other connections use"):
        rewrite_record(database, confirm="main@production")
    production.dispose()
    wait_until(lambda: _rewritten(database), "the server has noticed that nobody is connected")


def _rewritten(database: Database) -> bool:
    try:
        rewrite_record(database, confirm="main@production")
    except Refused:
        return False
    return True


def test_rewrite_of_a_name(each_url: sa.URL) -> None:
    """A database whose name in the application has changed gets the new one."""
    introduce(prepared(each_url, name="old"))
    database = prepared(each_url)
    rewrite_record(database, confirm="old@development")
    assert ["main@development"] == identities(database)


def test_rewrite_of_two_names(each_url: sa.URL) -> None:
    """Of two names on one database each has a record of its own, and the other's stays."""
    settings = {f"db:{name}:environment": "staging" for name in ("main", "audit")}
    urls = {"main": each_url, "audit": each_url}
    _applications.append(make_application(urls, settings=settings))
    introduce(_applications[-1].dbs["main"])
    introduce(_applications[-1].dbs["audit"], "alembic_version_audit")
    app = of_two(each_url)
    with pytest.raises(Refused, match=r"it says main@staging.*'alembic_version_audit' says audit"):
        rewrite_record(app.dbs["main"], confirm="audit@staging")
    rewrite_record(app.dbs["audit"], confirm="audit@staging")
    assert ["audit@development", "main@staging"] == sorted(identities(app.dbs["main"]))
    rewrite_record(app.dbs["main"], confirm="main@staging")
    assert ["audit@development", "main@development"] == sorted(identities(app.dbs["main"]))


def test_rewrite_of_another_version_table(each_url: sa.URL) -> None:
    """The error about a record of a version table with a name of its own says how to right it."""
    introduce(prepared(each_url, "staging"), "versions")
    database = prepared(each_url)
    with pytest.raises(RecordMismatch, match=r"'main@staging', version_table='versions'\)"):
        database.drop(confirm="main")
    with pytest.raises(Refused, match="it says nothing"):
        rewrite_record(database, confirm="main@staging")
    rewrite_record(database, confirm="main@staging", version_table="versions")
    assert ["main@development"] == identities(database)


def test_rewrite_that_changes_nothing(postgresql_database_url: sa.URL) -> None:
    """Who has changed nothing is told so: it was right already, or the server let nothing pass."""
    database = prepared(postgresql_database_url, "staging")
    introduce(database)
    with pytest.raises(Refused, match="says main@staging already"):
        rewrite_record(database, confirm="main@staging")
    rule = "CREATE RULE fixed AS ON UPDATE TO qapla_db_record DO INSTEAD NOTHING"
    with database.engine.begin() as connection:
        connection.execute(sa.text(rule))
    with pytest.raises(Refused, match=r"may not change the rows of .*qapla_db_record"):
        rewrite_record(prepared(postgresql_database_url), confirm="main@staging")


# --- the table


def test_created_by_two_at_once(postgresql_database_url: sa.URL) -> None:
    """Who creates the table while another transaction is about to waits and goes on."""
    first, second = prepared(postgresql_database_url), prepared(postgresql_database_url)
    table, other = RecordTable(), RecordTable("alembic_version_audit")

    def create_too() -> None:
        with second.engine.begin() as connection:
            other.create(connection)
            other.introduce(connection, second.settings)

    def waits() -> object:
        with first.engine.connect() as looking:
            return looking.scalar(
                sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            )

    thread = threading.Thread(target=create_too)
    with first.engine.begin() as connection:
        table.create(connection)
        table.introduce(connection, first.settings)
        thread.start()
        wait_until(waits, "the other transaction waits")
    thread.join(20)
    assert ["main@development"] * 2 == identities(first)
