"""SQLite: transactions that are what they say."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database
from tests.support import make_application


def prepare(url: str, **options: Any) -> Any:
    return make_application({"main": url}, settings={"db:main:options": options})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, file: Path) -> Iterator[Database]:
    with prepare(f"sqlite:///{file}" if request.param == "file" else "sqlite://") as app:
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("CREATE TABLE item (id INTEGER PRIMARY KEY)"))
            session.execute(sa.text("CREATE TABLE part (item INTEGER REFERENCES item (id))"))
        yield app.dbs["main"]


def pragma(database: Database, name: str) -> object:
    with database.engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def count(database: Database, table: str = "item") -> object:
    with database.session() as session:
        return session.scalar(sa.text(f"SELECT count(*) FROM {table}"))  # noqa: S608


def test_connection_defaults(file: Path) -> None:
    """A file has a write-ahead log, checks its references, and waits for locks."""
    with prepare(f"sqlite:///{file}") as app:
        database = app.dbs["main"]
        assert "wal" == pragma(database, "journal_mode")
        assert 1 == pragma(database, "synchronous")
        assert 1 == pragma(database, "foreign_keys")
        assert 30_000 == pragma(database, "busy_timeout")


def test_url_and_options_win(file: Path) -> None:
    """How long to wait for locks may be said in the URL or in the options."""
    with prepare(f"sqlite:///{file}?timeout=2") as app:
        assert 2000 == pragma(app.dbs["main"], "busy_timeout")
    with prepare(f"sqlite:///{file}", connect_args={"timeout": 3}) as app:
        assert 3000 == pragma(app.dbs["main"], "busy_timeout")


def test_references_are_checked(database: Database) -> None:
    """A row that refers to nothing is refused."""
    with database.session() as session, pytest.raises(sa.exc.IntegrityError, match="FOREIGN KEY"):
        session.execute(sa.text("INSERT INTO part VALUES (7)"))


def test_tables_are_rolled_back(database: Database) -> None:
    """A rollback takes tables with it, like rows."""
    with database.session() as session:
        session.execute(sa.text("CREATE TABLE other (n INTEGER)"))
        session.execute(sa.text("INSERT INTO item VALUES (1)"))
    assert ["item", "part"] == sorted(sa.inspect(database.engine).get_table_names())
    assert 0 == count(database)


def test_savepoints_belong_to_their_transaction(database: Database) -> None:
    """What a savepoint released is gone when its transaction is rolled back."""
    with database.session() as session:
        with session.begin_nested():
            session.execute(sa.text("INSERT INTO item VALUES (1)"))
        session.rollback()
        with session.begin_nested():
            session.execute(sa.text("INSERT INTO item VALUES (2)"))
        session.commit()
    assert 1 == count(database)


def test_locked_is_retryable(file: Path) -> None:
    """A transaction that could not have the lock may be run again."""
    with prepare(f"sqlite:///{file}?timeout=0") as app, closing(sqlite3.connect(file)) as other:
        database = app.dbs["main"]
        database.create()
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(sa.exc.OperationalError, match="locked") as caught,
            database.session() as s,
        ):
            s.execute(sa.text("SELECT 1"))
        assert database.backend.is_retryable(caught.value)
        other.rollback()
        with database.session() as session:
            with pytest.raises(sa.exc.OperationalError) as caught:
                session.execute(sa.text("SELECT * FROM nowhere"))
        assert not database.backend.is_retryable(caught.value)


def test_file_that_is_opened_to_read(file: Path) -> None:
    """A file opened with mode=ro is read by read-only sessions, log or not."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE item (n INTEGER)")
    for _ in range(2):
        with prepare(f"sqlite:///file:{file}?mode=ro&uri=true") as app:
            with app.dbs["main"].session(read_only=True) as session:
                assert [] == session.scalars(sa.text("SELECT n FROM item")).all()
        with prepare(f"sqlite:///{file}") as app:
            assert 0 == count(app.dbs["main"])


def test_uri_in_memory() -> None:
    """A database in memory may be named by a URI."""
    with prepare("sqlite:///file:shared_for_test?mode=memory&uri=true") as app:
        database = app.dbs["main"]
        assert database.exists()
        with database.transaction() as session:
            session.execute(sa.text("CREATE TABLE item (n INTEGER)"))
        assert 0 == count(database)


def test_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative file is of the directory in which the engine was built."""
    monkeypatch.chdir(tmp_path)
    with prepare("sqlite:///here.db") as app:
        app.dbs["main"].create()
        assert ["here.db"] == os.listdir(tmp_path)
        monkeypatch.chdir("/")
        assert app.dbs["main"].ping() > 0
        monkeypatch.chdir(tmp_path)
