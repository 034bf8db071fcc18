"""What a sandbox cannot see as it happens: cursors of the driver, and functions that write."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from qapla_db.errors import SandboxBroken, SandboxError
from qapla_db.testing import SandboxWarning
from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.world import Item, World, by_driver, make_world, sandbox_that_ends_with

STORE_POSTGRESQL = """
CREATE FUNCTION store_item(name text) RETURNS int LANGUAGE sql
AS 'INSERT INTO item (name, amount) VALUES ($1, 0) RETURNING amount'
"""
STORE_MARIADB = """
CREATE FUNCTION store_item(given text) RETURNS int
BEGIN INSERT INTO item (name, amount) VALUES (given, 0); RETURN 0; END
"""
BY_CLIENT_CURSOR = "INSERT INTO item (name, amount) VALUES ('one', 0)"


@pytest.mark.parametrize("writes", [False, True])
def test_a_commit_by_the_driver_above_another_session(world: World, writes: bool) -> None:
    """It stays when a session that only read is rolled back; one that wrote warns."""
    with sandbox(world), world.session() as first, world.session() as second:
        first.scalars(sa.select(Item.name)).all()
        if writes:
            first.add(Item(name="first"))
            first.flush()
        by_driver(second, "second")
        second.commit()
        with pytest.warns(SandboxWarning, match="undid what") if writes else nullcontext():
            first.rollback()
        assert [] == world.names() if writes else ["second"] == world.names()


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_function_that_writes_and_is_committed(
    postgresql: World, mariadb: World, end: str
) -> None:
    """What it has stored stays when a session that read before is rolled back."""
    for world, declare in ((postgresql, STORE_POSTGRESQL), (mariadb, STORE_MARIADB)):
        with world.outside.begin() as connection:
            connection.exec_driver_sql(declare)
        try:
            with sandbox(world), world.session() as reader:
                reader.scalars(sa.select(Item.name)).all()
                with world.session() as session:
                    session.execute(sa.select(sa.func.store_item("one")))
                    session.commit()
                getattr(reader, end)()
                assert ["one"] == world.names()
        finally:
            with world.outside.begin() as connection:
                connection.exec_driver_sql("DROP FUNCTION store_item")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_driver_s_write_above_a_reader(world: World, end: str) -> None:
    """It is rolled back, whatever a reader that began before has done meanwhile."""
    with sandbox(world), world.session() as reader, world.session() as session:
        reader.scalars(sa.select(Item.name)).all()
        by_driver(session, "one")
        getattr(reader, end)()
        session.rollback()
        assert [] == world.names()


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_driver_s_write_in_autocommit(postgresql: World, mariadb: World, end: str) -> None:
    """It stays, however its connection ends, when a session that read before is rolled back."""
    for world in (postgresql, mariadb):
        with sandbox(world), world.session() as reader:
            reader.scalars(sa.select(Item.name)).all()
            connection = world.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            cursor: Any = connection.connection.cursor()
            cursor.execute(BY_CLIENT_CURSOR)
            cursor.close()
            getattr(connection, end)()
            connection.close()
            reader.rollback()
            assert ["one"] == world.names()


def test_a_write_that_a_read_only_session_is_refused(postgresql: World) -> None:
    """It changes nothing for others: what a cursor of the driver wrote is rolled back."""
    with sandbox(postgresql), postgresql.session() as session:
        by_driver(session, "one")
        with postgresql.engine.connect() as connection:
            connection = connection.execution_options(postgresql_readonly=True)
            with pytest.raises(sa.exc.InternalError, match="read-only"):
                connection.execute(sa.insert(Item).values(name="two", amount=1))
        session.rollback()
        assert [] == postgresql.names()


def test_the_driver_s_own_connection(postgresql: World) -> None:
    """What is written on it by a cursor that it did not make is undone by nobody."""
    with sandbox(postgresql):
        with postgresql.engine.begin() as connection:
            raw: Any = connection.connection.driver_connection
            psycopg.ClientCursor(raw).execute(BY_CLIENT_CURSOR)
        for _ in range(3):
            assert ["one"] == postgresql.names()


@pytest.mark.parametrize("sends", ["COPY (SELECT generate_series(1, 3)) TO STDOUT", None])
def test_a_cursor_that_has_rows_to_come(postgresql: World, sends: str | None) -> None:
    """Who speaks meanwhile is refused in time, and not left waiting."""
    with sandbox(postgresql, wait=0.2), postgresql.engine.connect() as connection:
        cursor: Any = connection.connection.cursor()
        if sends is None:
            for _ in cursor.stream("SELECT generate_series(1, 3)"):
                with pytest.raises(SandboxError, match="row by row, has had"):
                    postgresql.names()
        else:
            with cursor.copy(sends) as copy:
                for _ in copy.rows():
                    with pytest.raises(SandboxError, match="row by row, has had"):
                        postgresql.names()
        assert [] == postgresql.names()


def test_rows_to_come_at_the_end(postgresql: World) -> None:
    """A sandbox ends, and the next one works, where rows were never fetched."""
    with sandbox_that_ends_with(postgresql, SandboxBroken, "had rows to come"):
        connection = postgresql.engine.raw_connection()
        cursor: Any = connection.cursor()
        rows = cursor.stream("SELECT generate_series(1, 3)")
        next(rows)
    with suppress(psycopg.Error):
        rows.close()
    connection.close()
    with sandbox(postgresql):
        assert [] == postgresql.names()


def test_an_unbuffered_cursor_of_mariadb(mariadb: World) -> None:
    """Its rows are not taken away by another session, which is refused in time."""
    with sandbox(mariadb, wait=0.2), mariadb.engine.connect() as connection:
        cursor: Any = connection.connection.cursor(pymysql.cursors.SSCursor)
        cursor.execute("SELECT 1 UNION SELECT 2")
        assert 1 == cursor.fetchone()[0]
        with pytest.raises(SandboxError, match="row by row, has had"):
            mariadb.names()
        assert 2 == cursor.fetchone()[0]
        cursor.close()
        assert [] == mariadb.names()


def test_autocommit_of_the_driver(postgresql: World) -> None:
    """A driver that was told to commit each statement does so, in the sandbox, too."""
    url = postgresql.engine.url
    world = make_world(postgresql.kind, url, connect_args={"autocommit": True})
    with sandbox(world), world.session() as session:
        session.add(Item(name="one"))
        session.flush()
        session.rollback()
        assert ["one"] == world.names()
    world.engine.dispose()
    assert [] == postgresql.really()
