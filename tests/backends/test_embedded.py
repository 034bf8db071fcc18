"""``embedded:///DIRECTORY?database=NAME`` from the setting to the session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from qapla_db.backends import embedded_server
from qapla_db.backends.embedded_supervisor import postmaster_pid
from tests import servers
from tests.support import make_application, wait_until


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Data directory of a server that the first session started."""
    with servers.directory("embedded") as home:
        with make_application({"main": f"embedded:///{home}/data?fsync=off"}) as app:
            app.dbs["main"].ping()
        yield home / "data"
        embedded_server.stop(home / "data")


def test_nothing_runs_before_the_first_use() -> None:
    """Preparing starts no server and makes no directory."""
    with servers.directory("unused") as home:
        with make_application({"main": f"embedded:///{home}/data"}) as app:
            assert "postgres" == app.dbs["main"].backend.name_of(app.dbs["main"].settings.url)
        assert [] == list(home.iterdir())


def test_two_databases_of_one_directory(directory: Path) -> None:
    """Two databases of one server are made, used apart, and dropped; the data is kept."""
    url = f"embedded:///{directory}?database="
    urls = {"main": f"{url}shop_test", "audit": f"{url}audit-TEST"}
    with make_application(urls, endpoint="tests") as app:
        for name, database in app.dbs.items():
            assert not database.exists()
            assert database.create()
            assert not database.create()
            with database.transaction() as session:
                session.execute(sa.text("CREATE TABLE item (name TEXT)"))
                session.execute(sa.text("INSERT INTO item VALUES (:name)"), {"name": name})
                assert "off" == session.scalar(sa.text("SHOW fsync"))
    with make_application(urls, endpoint="tests") as app:
        for name, database in app.dbs.items():
            with database.session(read_only=True) as session:
                assert name == session.scalar(sa.text("SELECT name FROM item"))
        assert app.dbs["audit"].drop()
        assert not app.dbs["audit"].exists()
        assert app.dbs["main"].exists()
        with app.dbs["main"].session() as session:
            session.scalar(sa.text("SELECT name FROM item"))
            assert app.dbs["main"].drop()


def test_killed_server(directory: Path) -> None:
    """After a kill of the server the next session starts it again; what was committed is there."""
    with make_application({"main": f"embedded:///{directory}?fsync=off"}) as app:
        with app.dbs["main"].transaction() as session:
            session.execute(sa.text("CREATE TABLE kept AS SELECT 42 AS answer"))
        killed = postmaster_pid(directory)
        assert killed
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: postmaster_pid(directory) is None, "the server is dead")
        with app.dbs["main"].transaction() as session:
            assert 42 == session.scalar(sa.text("SELECT answer FROM kept"))
            session.execute(sa.text("DROP TABLE kept"))


def test_database_that_is_not_there(directory: Path) -> None:
    """A server that runs and refuses is left as it is, and what it says is said."""
    with make_application({"main": f"embedded:///{directory}?database=nowhere"}) as app:
        running = postmaster_pid(directory)
        with pytest.raises(sa.exc.OperationalError, match='"nowhere" does not exist'):
            with app.dbs["main"].session() as session:
                session.execute(sa.text("SELECT 1"))
        assert running == postmaster_pid(directory)


def test_relative_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes before a relative directory mean it as it was when the application started."""
    monkeypatch.chdir(directory.parent)
    with make_application({"main": "embedded:///data"}) as app:
        monkeypatch.chdir("/")
        assert str(directory) == app.dbs["main"].settings.url.database
        with app.dbs["main"].session() as session:
            assert "postgres" == session.scalar(sa.text("SELECT current_database()"))


def test_default_url_of_the_same_directory(directory: Path) -> None:
    """default_url may be written in the same form."""
    url = f"embedded:///{directory}?database="
    settings = {"db:main:default_url": f"{url}template1"}
    with make_application({"main": f"{url}other"}, settings=settings) as app:
        assert app.dbs["main"].create()
        assert app.dbs["main"].drop(confirm="main")


def test_address_names_no_socket(directory: Path) -> None:
    """What people see of an embedded database is what they wrote."""
    with make_application({"main": f"embedded:///{directory}?database=x"}) as app:
        assert f"{directory}?database=x" in repr(app.dbs["main"])
