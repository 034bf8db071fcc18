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
from qapla_db.errors import QaplaError, ServerError
from tests.support import make_application


def prepare(url: str | sa.URL, **options: Any) -> Any:
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
        assert app.dbs["main"].ping() > 0
        app.dbs["main"].dispose()
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        assert app.dbs["main"].ping() > 0
        assert [] == os.listdir()


# --- files that are not there, and places where none can be


@pytest.mark.parametrize("name", ["x.db", "missing/x.db"])
@pytest.mark.parametrize("by_uri", [False, True])
def test_reading_creates_no_file(tmp_path: Path, name: str, by_uri: bool) -> None:
    """Who asks whether a database answers or exists learns what to call, and gets no empty file."""
    path = tmp_path / "with space" / name
    path.parents[name.count("/")].mkdir()
    url = sa.URL.create("sqlite", database=str(path))
    if by_uri:
        url = url.set(database=path.as_uri().replace("file://", "file:"), query={"uri": "true"})
    with prepare(url) as app:
        database = app.dbs["main"]
        assert not database.exists()
        with pytest.raises(ServerError) as caught:
            database.ping()
        assert not path.exists()
        for part in ("'main' does not exist", str(path), "create()", "migrations", "db:main:url"):
            assert part in str(caught.value)
        assert database.create()
        assert path.is_file()
        assert database.ping() > 0


def test_directory_in_place_of_a_file(tmp_path: Path) -> None:
    """A directory in place of the file is named, by who reads and by who creates."""
    with prepare(f"sqlite:///{tmp_path}") as app:
        for use in (app.dbs["main"].ping, app.dbs["main"].create):
            with pytest.raises(
                ServerError, match=r"'main'.*is a directory.*'db:main:url'"
            ) as caught:
                use()
            assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["letter/x.db", "letter/sub/x.db", f"{'long' * 100}.db"])
def test_impossible_place(tmp_path: Path, name: str) -> None:
    """Where no file can be, the error names the database, the path and the setting."""
    (tmp_path / "letter").write_text("a file, no directory")
    with prepare(f"sqlite:///{tmp_path / name}") as app:
        with pytest.raises(ServerError, match=r"'main' cannot be created at") as caught:
            app.dbs["main"].create()
        assert str(tmp_path / name) in str(caught.value)
        assert "Correct 'db:main:url'" in str(caught.value)
        with pytest.raises(QaplaError, match=r"'main'.*'db:main:url'"):
            app.dbs["main"].ping()


def test_file_of_another_kind(file: Path) -> None:
    """A file that is none of SQLite is not called a server."""
    file.write_text("Dear Martok, " * 100)
    with prepare(f"sqlite:///{file}") as app:
        with pytest.raises(ServerError, match="file is not a database") as caught:
            app.dbs["main"].ping()
    assert "'db:main:url' names a file of SQLite" in str(caught.value)
    assert "server runs" not in str(caught.value)
