"""The session: closed by its scope, honest about what is not committed, read-only if asked."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable, DropTable

from qapla_db import Database, Session
from qapla_db.errors import ReadOnlyError, SettingInvalid, TransactionFailed
from tests.support import make_application, wait_until


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), unique=True)


other_table = sa.Table("other", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))


URLOf = Callable[[str], sa.URL]


@pytest.fixture(scope="module")
def url_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[URLOf]:
    """Give the URL of this module's database of a kind: making one for each test takes long."""
    urls: dict[str, sa.URL] = {}

    def url_of(kind: str) -> sa.URL:
        if kind == "sqlite":
            return sa.URL.create("sqlite", database=str(tmp_path_factory.mktemp("db") / "a.db"))
        if kind not in urls:
            server: sa.URL = request.getfixturevalue(f"{kind}_url")
            urls[kind] = server.set(database=f"session_test_{os.getpid()}")
            with make_application({"main": urls[kind]}) as app:
                app.dbs["main"].create()
        return urls[kind]

    yield url_of
    for url in urls.values():
        with make_application({"main": url}) as app:
            app.dbs["main"].drop(confirm="main")


@contextmanager
def prepared(url: sa.URL, **settings: Any) -> Iterator[Database]:
    """A database with one connection and two rows."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1, **settings.pop("options", {})}
    values = {"db:main:options": options, **settings}
    with make_application({"main": url}, settings=values) as app:
        database = app.dbs["main"]
        Base.metadata.drop_all(database.engine)
        Base.metadata.create_all(database.engine)
        with database.transaction() as session:
            session.add_all([Item(id=1, name="one"), Item(id=2, name="two")])
        yield database
        assert 0 == checked_out(database)


@pytest.fixture(params=["postgresql", "sqlite", "mariadb"])
def each_url(request: pytest.FixtureRequest, url_of: URLOf) -> sa.URL:
    return url_of(request.param)


@pytest.fixture
def database(each_url: sa.URL) -> Iterator[Database]:
    with prepared(each_url) as database:
        yield database


@pytest.fixture
def memory() -> Iterator[Database]:
    with prepared(sa.make_url("sqlite://")) as database:
        yield database


@pytest.fixture
def postgresql(url_of: URLOf) -> Iterator[Database]:
    with prepared(url_of("postgresql")) as database:
        yield database


@pytest.fixture(params=["postgresql", "mariadb"])
def served(request: pytest.FixtureRequest, url_of: URLOf) -> Iterator[Database]:
    """A database of a server, which can end connections."""
    with prepared(url_of(request.param)) as database:
        yield database


def checked_out(database: Database) -> int:
    pool = database.engine.pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()


def names(database: Database) -> list[str]:
    with database.session() as session:
        return list(session.scalars(sa.select(Item.name).order_by(Item.id)))


def write_and_fail(session: Session, before_failing: Callable[[], object] = bool) -> None:
    session.execute(sa.insert(Item).values(id=4, name="four"))
    before_failing()
    raise ZeroDivisionError


# --- the scope closes it


def test_never_commits_by_itself(database: Database) -> None:
    """What is not committed at the end of the block is gone, and the connection is back."""
    with database.session() as session:
        session.add(Item(id=3, name="three"))
        session.flush()
        assert 1 == checked_out(database)
    assert 0 == checked_out(database)
    assert ["one", "two"] == names(database)
    with database.session() as session:
        session.add(Item(id=3, name="three"))
        session.commit()
    assert ["one", "two", "three"] == names(database)


def test_error_in_the_block(database: Database) -> None:
    """An error leaves the block as it is; what was written before it is rolled back."""
    with pytest.raises(ZeroDivisionError), database.session() as session:
        write_and_fail(session)
    assert 0 == checked_out(database)
    assert ["one", "two"] == names(database)


def test_get_session_is_closed_by_the_caller(database: Database) -> None:
    """A session that was asked for stays open until its caller closes it."""
    session = database.get_session()
    assert 2 == session.scalar(sa.text("SELECT count(*) FROM item"))
    assert 1 == checked_out(database)
    session.close()
    assert 0 == checked_out(database)


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.scalar(sa.text("SELECT 1")),
        lambda session: session.get(Item, 1),
        lambda session: session.add(Item(id=9, name="nine")),
        lambda session: session.begin(),
    ],
)
@pytest.mark.parametrize("end", [Session.close, Session.abandon])
def test_closed_session_stays_closed(
    memory: Database, use: Callable[[Session], object], end: Callable[[Session], None]
) -> None:
    """A closed session used again raises, instead of leaking a second connection."""
    session = memory.get_session()
    session.get(Item, 1)
    end(session)
    with pytest.raises(sa.exc.InvalidRequestError, match="permanently closed"):
        use(session)
    end(session)
    assert 0 == checked_out(memory)


def test_sessions_know_their_database(memory: Database) -> None:
    """A session says whose it is, whether it may write and what it is doing."""
    with memory.session() as session:
        assert ("main", False) == (session.database_name, session.read_only)
        assert "<session of 'main', idle>" == repr(session)
        session.get(Item, 1)
        assert "<session of 'main', in a transaction>" == repr(session)
    with memory.session(read_only=True) as session:
        assert ("main", True) == (session.database_name, session.read_only)
        assert "<read-only session of 'main', idle>" == repr(session)


def test_session_keywords(each_url: sa.URL) -> None:
    """db:<name>:session holds keywords of the session."""
    with prepared(each_url, **{"db:main:session": {"expire_on_commit": False}}) as database:
        with database.session() as session:
            item = session.get_one(Item, 1)
            session.commit()
        assert "one" == item.name


@pytest.mark.parametrize(
    "keywords", [{"expire": False}, {"bind": None}, {"class_": Session}, {"autocommit": True}]
)
def test_unknown_session_keyword(keywords: dict[str, Any]) -> None:
    """A keyword that sessions do not take is an error that names the setting."""
    with make_application({"main": "sqlite://"}, settings={"db:main:session": keywords}) as app:
        with pytest.raises(SettingInvalid, match=r"'db:main:session'.*'main'") as caught:
            app.dbs["main"].session()
    assert "db:main:session" == caught.value.key


# --- transaction()


def test_transaction_commits_at_the_end(database: Database) -> None:
    """The block's changes are stored when it ends well, and none of them when it does not."""
    with database.transaction() as session:
        session.add(Item(id=3, name="three"))
    assert ["one", "two", "three"] == names(database)
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        write_and_fail(session)
    assert ["one", "two", "three"] == names(database)


def test_transaction_whose_flush_fails(database: Database) -> None:
    """A violation found while the block ends is raised."""
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as session:
        session.add_all([Item(id=3, name="three"), Item(id=4, name="one")])
    assert ["one", "two"] == names(database)


def defer_uniqueness(database: Database) -> None:
    with database.transaction() as session:
        session.execute(sa.text("ALTER TABLE item DROP CONSTRAINT item_name_key"))
        session.execute(sa.text("ALTER TABLE item ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"))


def test_commit_that_fails_is_raised(postgresql: Database) -> None:
    """A violation that the server finds at COMMIT is raised, and nothing of it is stored."""
    defer_uniqueness(postgresql)
    with pytest.raises(sa.exc.IntegrityError), postgresql.transaction() as session:
        session.execute(sa.insert(Item).values(id=3, name="one"))
    assert ["one", "two"] == names(postgresql)


def test_abandon_after_a_failed_commit(
    postgresql: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """After a commit that failed a session says that it holds changes, and closes quietly."""
    defer_uniqueness(postgresql)
    session = postgresql.get_session()
    session.add(Item(id=3, name="one"))
    with pytest.raises(sa.exc.IntegrityError):
        session.commit()
    session.abandon()
    assert not session.has_uncommitted
    assert 0 == checked_out(postgresql)
    assert [] == caplog.records
    assert ["one", "two"] == names(postgresql)


# --- has_uncommitted

Step = Callable[[Any], object]


def rename(session: Session, name: str) -> Item:
    item = session.get_one(Item, 1)
    item.name = name
    return item


UPDATE = sa.text("UPDATE item SET name = 'x' WHERE id = 1")

WRITES: dict[str, Step] = {
    "add": lambda session: session.add(Item(id=3, name="three")),
    "flush": lambda session: (session.add(Item(id=3, name="three")), session.flush()),
    "change": lambda session: rename(session, "x"),
    "flushed change": lambda session: (rename(session, "x"), session.flush()),
    "delete": lambda session: session.delete(session.get(Item, 1)),
    "core insert": lambda session: session.execute(sa.insert(Item).values(id=3, name="three")),
    "core update": lambda session: session.execute(sa.update(Item).values(name=Item.name)),
    "core delete": lambda session: session.execute(sa.delete(Item)),
    "lambda statement": lambda session: session.execute(
        sa.lambda_stmt(lambda: sa.delete(Item).where(Item.id == 1))
    ),
    "query": lambda session: session.query(Item).filter_by(id=1).delete(),
    "bulk insert": lambda session: session.bulk_insert_mappings(Item, [{"id": 3, "name": "z"}]),
    "bulk update": lambda session: session.bulk_update_mappings(Item, [{"id": 1, "name": "x"}]),
    "bulk save": lambda session: session.bulk_save_objects([Item(id=3, name="z")]),
    "text": lambda session: session.execute(UPDATE),
    "text with a comment": lambda session: session.execute(
        sa.text("-- why\n /* and (why) */ UPDATE item SET name = 'x' WHERE id = 1")
    ),
    "table": lambda session: session.execute(CreateTable(other_table)),
    "text in a savepoint": lambda session: (session.begin_nested(), session.execute(UPDATE)),
    "savepoint": lambda session: (
        session.begin_nested(),
        session.add(Item(id=3, name="three")),
        session.flush(),
    ),
    "savepoint released": lambda session: (
        session.begin_nested(),
        session.execute(UPDATE),
        session.get_nested_transaction().commit(),
    ),
    "before a savepoint rolled back": lambda session: (
        session.execute(UPDATE),
        session.begin_nested(),
        session.get_nested_transaction().rollback(),
    ),
    "after a commit": lambda session: (
        session.execute(UPDATE),
        session.commit(),
        session.execute(UPDATE),
    ),
}

READS: dict[str, Step] = {
    "nothing": lambda session: None,
    "select": lambda session: session.scalars(sa.select(Item)).all(),
    "text": lambda session: session.scalars(sa.text("SELECT name FROM item")).all(),
    "words": lambda session: session.scalar(sa.text("SELECT 'insert into; update a set'")),
    "same value": lambda session: (rename(session, "one"), session.flush()),
    "commit": lambda session: (session.execute(UPDATE), session.commit()),
    "rollback": lambda session: (session.execute(UPDATE), session.rollback()),
    "expunge": lambda session: (session.add(Item(id=3)), session.expunge_all()),
    "savepoint rolled back": lambda session: (
        session.begin_nested(),
        session.execute(UPDATE),
        session.get_nested_transaction().rollback(),
    ),
    "two savepoints, the outer rolled back": lambda session: (
        session.begin_nested(),
        session.begin_nested(),
        session.execute(UPDATE),
        session.get_nested_transaction().commit(),
        session.get_nested_transaction().rollback(),
    ),
    "close": lambda session: (session.execute(UPDATE), session.close()),
}


@pytest.mark.parametrize("step", WRITES.values(), ids=WRITES)
def test_has_uncommitted(memory: Database, step: Step) -> None:
    """Changes that no commit has stored are seen, flushed or not, by ORM, Core or text."""
    with memory.session() as session:
        step(session)
        assert session.has_uncommitted
        session.rollback()
        assert not any([session.has_uncommitted])


@pytest.mark.parametrize("step", READS.values(), ids=READS)
def test_nothing_uncommitted(memory: Database, step: Step) -> None:
    """Reading, rolling back, committing and closing leave nothing uncommitted."""
    with memory.session() as session:
        step(session)
        assert not session.has_uncommitted


def test_writes_of_postgresql_are_seen(postgresql: Database) -> None:
    """A statement that writes inside a WITH, or behind RETURNING, counts as a change."""
    move = "WITH gone AS (DELETE FROM item RETURNING id) SELECT count(*) FROM gone"
    insert = sa.text("INSERT INTO item VALUES (7, 'seven') RETURNING id, name")
    for statement in (
        sa.text(move),
        sa.select(Item).from_statement(insert),
        insert.columns(Item.id, Item.name),
        sa.insert(Item).values(id=8, name="eight").returning(Item),
        sa.select(sa.literal(1)).add_cte(sa.insert(Item).values(id=9, name="nine").cte("added")),
        sa.text("EXPLAIN (ANALYZE, COSTS off) INSERT INTO item VALUES (10, 'ten')"),
    ):
        with postgresql.session() as session:
            session.execute(statement).all()
            assert session.has_uncommitted
    for command in (
        "DO $$ BEGIN INSERT INTO item VALUES (11, 'eleven'); END $$",
        "COPY item FROM PROGRAM 'printf \"12\\ttwelve\"'",
        "CALL add_item()",
    ):
        with postgresql.session() as session:
            session.connection().execute(
                sa.text(
                    "CREATE PROCEDURE add_item() LANGUAGE sql "
                    "AS $$ INSERT INTO item VALUES (13, 'thirteen') $$"
                )
            )
            session.execute(sa.text(command))
            assert 3 == session.query(Item).count()
            assert session.has_uncommitted
    for harmless in (
        "WITH a AS (SELECT 1) SELECT * FROM a, item",
        "EXPLAIN ANALYZE SELECT * FROM item",
        "EXPLAIN INSERT INTO item VALUES (14, 'fourteen')",
    ):
        with postgresql.session() as session:
            session.execute(sa.text(harmless)).all()
            assert not session.has_uncommitted


def test_what_may_only_read_is_left_to_the_server(postgresql: Database) -> None:
    """A read-only session may call what does not write; what does, the server refuses."""
    with postgresql.session(read_only=True) as session:
        session.execute(sa.text("DO $$ BEGIN PERFORM count(*) FROM item; END $$"))
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            session.execute(sa.text("DO $$ BEGIN DELETE FROM item; END $$"))
    with postgresql.session(read_only=True) as session:
        added = sa.insert(Item).values(id=9, name="nine").cte("added")
        with pytest.raises(ReadOnlyError):
            session.execute(sa.select(sa.literal(1)).add_cte(added))


def test_transaction_without_autobegin(each_url: sa.URL) -> None:
    """A session whose settings forbid to begin by itself keeps to it."""
    with prepared(each_url, **{"db:main:session": {"autobegin": False}}) as database:
        with pytest.raises(sa.exc.InvalidRequestError, match=r"[Aa]utobegin"):
            with database.session() as session:
                session.execute(UPDATE)
        with database.session() as session, session.begin():
            session.execute(UPDATE)
            assert session.has_uncommitted


# --- read-only sessions

REFUSED = {
    **{name: step for name, step in WRITES.items() if name not in ("add", "change", "delete")},
    "drop": lambda session: session.execute(DropTable(other_table)),
    "text drop": lambda session: session.execute(sa.text("DROP TABLE item")),
    "with": lambda session: (session.add(Item(id=3, name="x")), session.scalar(sa.select(Item))),
}


@pytest.mark.parametrize("step", REFUSED.values(), ids=REFUSED)
def test_read_only_session_refuses(memory: Database, step: Step) -> None:
    """A read-only session refuses to write before anything reaches the server."""
    statements: list[str] = []

    def remember(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    event.listen(memory.engine, "before_cursor_execute", remember)
    with memory.session(read_only=True) as session, pytest.raises(ReadOnlyError) as caught:
        step(session)
    assert "this session of 'main' is read-only and cannot" in str(caught.value)
    assert "without read_only=True" in str(caught.value)
    assert not any(word in " ".join(statements) for word in ("INSERT", "UPDATE", "DELETE", "DROP"))
    assert ["one", "two"] == names(memory)


def test_read_only_session_reads(database: Database) -> None:
    """A read-only session reads all it likes, may change objects, and stores none."""
    with database.session(read_only=True) as session:
        item = session.get_one(Item, 1)
        item.name = "one"
        assert ["one", "two"] == list(session.scalars(sa.select(Item.name).order_by(Item.id)))
        session.commit()
        words = sa.text("WITH a AS (SELECT 'delete from x' AS b) SELECT b FROM a")
        assert "delete from x" == session.scalar(words)


RAW_WRITES = [
    "UPDATE item SET name = 'x'",
    "INSERT INTO item VALUES (3, 'three')",
    "DELETE FROM item",
    "CREATE TABLE another (id INTEGER)",
]


@pytest.mark.parametrize("statement", RAW_WRITES)
def test_server_refuses_too(database: Database, statement: str) -> None:
    """What gets past us is refused by the server, and the connection may write again afterwards."""
    with database.session(read_only=True) as session:
        assert 2 == session.scalar(sa.text("SELECT count(*) FROM item"))
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only") as caught:
            session.connection().exec_driver_sql(statement)
        assert not caught.value.connection_invalidated
    with database.transaction() as session:
        session.add(Item(id=3, name="three"))
    assert ["one", "two", "three"] == names(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item WHERE id = 3")


def test_connection_writes_again_outside_of_sessions(database: Database) -> None:
    """After a read-only session its connection writes for whoever takes it from the pool."""
    with database.session(read_only=True) as session:
        session.get(Item, 1)
    raw = database.engine.raw_connection()
    try:
        raw.cursor().execute("UPDATE item SET name = 'uno' WHERE id = 1")
        raw.commit()
    finally:
        raw.close()
    assert ["uno", "two"] == names(database)
    with database.session(read_only=True) as session:
        session.get(Item, 1)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(UPDATE)
    assert ["x", "two"] == names(database)


def test_read_only_where_everything_is_autocommit(each_url: sa.URL) -> None:
    """A read-only session of an engine set to AUTOCOMMIT is refused writes by the server too."""
    with prepared(each_url, options={"isolation_level": "AUTOCOMMIT"}) as database:
        with database.session() as session:
            session.execute(UPDATE)
        assert ["x", "two"] == names(database)
        with database.session(read_only=True) as session:
            with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
                session.connection().exec_driver_sql("DELETE FROM item")
        with database.session() as session:
            session.execute(sa.text("UPDATE item SET name = 'y' WHERE id = 1"))
        assert ["y", "two"] == names(database)


def test_autocommit_in_a_read_only_session(database: Database) -> None:
    """A read-only session cannot be talked out of it by an isolation level."""
    with (
        database.session(read_only=True) as session,
        pytest.raises(ReadOnlyError, match="AUTOCOMMIT"),
    ):
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    assert ["one", "two"] == names(database)


# --- broken states


def end_connections(database: Database) -> None:
    """Let the server end every connection of a database but the one that asks."""
    if database.backend.name == "postgresql":
        ask = "SELECT pid FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        end = "SELECT pg_terminate_backend({})"
    else:
        ask = "SELECT id FROM information_schema.processlist WHERE db = :name"
        end = "KILL {}"
    url = database.settings.url
    with database.backend.administration(url) as connection:
        query = sa.text(ask).bindparams(name=url.database)
        for process in connection.scalars(query).all():
            connection.exec_driver_sql(end.format(process))
        wait_until(lambda: not connection.scalars(query).all(), "the connections are gone")


def test_connection_that_died_in_the_middle(
    served: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A session whose connection died ends without hiding the error, and the next one works."""
    with served.session() as session:
        session.execute(UPDATE)
        end_connections(served)
        with pytest.raises(sa.exc.DBAPIError) as caught:
            session.scalar(sa.text("SELECT 1"))
    assert caught.value.connection_invalidated
    assert 0 == checked_out(served)
    assert ["one", "two"] == names(served)


def test_connection_that_died_before_the_end(
    served: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that died unnoticed hides neither the block's own error nor its good end."""
    with pytest.raises(ZeroDivisionError), served.session() as session:
        write_and_fail(session, before_failing=lambda: end_connections(served))
    assert ["one", "two"] == names(served)
    with served.session() as session:
        session.execute(UPDATE)
        end_connections(served)
    assert ["one", "two"] == names(served)


def test_pooled_connection_that_died(served: Database) -> None:
    """A connection that died while nobody used it is replaced without an error."""
    assert ["one", "two"] == names(served)
    end_connections(served)
    assert ["one", "two"] == names(served)


class TimeIsUp(Exception):
    """What a time limit raises in the middle of a statement."""


def is_running(database: Database, statement: str) -> bool:
    if database.backend.name == "postgresql":
        asked = (
            "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        )
    else:
        asked = "SELECT info FROM information_schema.processlist WHERE id <> connection_id()"
    with database.session() as session:
        return any(statement in (one or "") for one in session.scalars(sa.text(asked)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("error", [TimeIsUp, KeyboardInterrupt, SystemExit])
def test_statement_that_is_interrupted(
    served: Database, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that a signal interrupts is stopped at the server, and its locks are free."""
    assert threading.current_thread() is threading.main_thread()
    sleep = "pg_sleep(60)" if served.backend.name == "postgresql" else "sleep(60)"

    def ring(number: int, frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with served.session() as session:
            session.execute(UPDATE)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(error):
                session.execute(sa.text(f"SELECT {sleep}"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 == checked_out(served)
    wait_until(lambda: not is_running(served, sleep), "the statement is stopped", 3)
    with served.transaction() as session:
        session.execute(UPDATE)
    assert ["x", "two"] == names(served)


def test_end_of_the_process_during_the_clean_up(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A KeyboardInterrupt in the rollback goes on, and the connection is not left behind."""

    def interrupt(connection: object) -> None:
        event.remove(database.engine, "rollback", interrupt)
        raise KeyboardInterrupt

    session = database.get_session()
    session.execute(UPDATE)
    event.listen(database.engine, "rollback", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.abandon()
    assert 0 == checked_out(database)
    assert ["one", "two"] == names(database)


def test_failure_of_the_clean_up(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A rollback that fails is logged, not raised, and its connection is thrown away."""

    def fail(connection: object) -> None:
        event.remove(database.engine, "rollback", fail)
        raise RuntimeError("no rollback today")

    session = database.get_session()
    session.execute(UPDATE)
    event.listen(database.engine, "rollback", fail)
    with caplog.at_level(logging.WARNING, "qapla_db"):
        session.abandon()
    [record] = [one for one in caplog.records if one.name == "qapla_db"]
    assert "the rollback of a session of 'main' failed" in record.message
    assert record.exc_info is not None
    assert "no rollback today" in str(record.exc_info[1])
    assert 0 == checked_out(database)
    assert ["one", "two"] == names(database)


def test_commit_after_a_caught_error(postgresql_database_url: sa.URL) -> None:
    """PostgreSQL would answer such a commit with a rollback and call it a success."""
    with make_application({"main": postgresql_database_url}) as app:
        database = app.dbs["main"]
        with database.transaction() as session:
            session.execute(sa.text("CREATE TABLE once (id INTEGER PRIMARY KEY)"))
        insert = sa.text("INSERT INTO once VALUES (1)")
        with database.session() as session:
            session.execute(insert)
            with contextlib.suppress(sa.exc.IntegrityError):
                session.execute(insert)
            with pytest.raises(TransactionFailed, match=r"'main'.*begin_nested"):
                session.commit()
        with database.transaction() as session:
            session.execute(insert)
            with contextlib.suppress(sa.exc.IntegrityError), session.begin_nested():
                session.execute(insert)
        with database.session() as session:
            assert [1] == session.scalars(sa.text("SELECT id FROM once")).all()
