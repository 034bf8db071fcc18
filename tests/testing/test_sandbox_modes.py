"""Read-only sessions and deferred constraints in a sandbox."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from qapla_db.testing.sandboxes.sandbox import sandbox
from tests.testing.world import Item, World

INSERT = sa.insert(Item).values(name="one", amount=0)

# --- read-only


@pytest.fixture
def reader(world: World) -> sa.Engine:
    """An engine of read-only connections, as the backends make it."""
    options = {"postgresql_readonly": True} if world.kind == "postgresql" else {}
    return world.engine.execution_options(qapla_db_read_only=True, **options)


def test_a_read_only_session_cannot_write(world: World, reader: sa.Engine) -> None:
    """The write is refused with the error of a server; reading goes on after a rollback."""
    with sandbox(world):
        world.add("there")
        with orm.Session(reader) as session:
            assert 1 == session.scalar(sa.select(sa.func.count()).select_from(Item))
            with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"):
                session.execute(INSERT)
            session.rollback()
            assert 1 == session.scalar(sa.select(sa.func.count()).select_from(Item))
        assert ["there"] == world.names()


def test_read_only_by_the_option_of_postgresql(postgresql: World) -> None:
    """An application that uses SQLAlchemy's own option gets what it asks for."""
    engine = postgresql.engine.execution_options(postgresql_readonly=True)
    with sandbox(postgresql):
        with engine.connect() as connection:
            with pytest.raises(sa.exc.InternalError, match="read-only"):
                connection.execute(INSERT)
        postgresql.add("there")


def test_read_only_is_of_one_session_only(world: World, reader: sa.Engine) -> None:
    """While a read-only session is open others write, before and after its statements."""
    count = sa.select(sa.func.count()).select_from(Item)
    with sandbox(world):
        with orm.Session(reader) as session, orm.Session(reader) as another:
            assert 0 == session.scalar(count)
            assert 0 == another.scalar(count)
            world.add("first")
            assert 1 == session.scalar(count)
            with world.session() as writer:
                assert 1 == writer.scalar(count)
                assert 1 == another.scalar(count)
                writer.add(Item(name="second"))
                writer.flush()
                assert 2 == session.scalar(count)
                writer.add(Item(name="third"))
                writer.commit()
        assert ["first", "second", "third"] == world.names()


def test_a_read_only_lane_ends_with_its_sandbox(world: World, reader: sa.Engine) -> None:
    """After a sandbox with read-only sessions the connections of the pool can write."""
    with sandbox(world):
        with orm.Session(reader) as session:
            session.scalar(sa.select(sa.func.count()).select_from(Item))
    with world.engine.connect() as connection:
        connection.execute(INSERT)
        connection.rollback()


def test_sqlite_connections_that_were_read_only_before(sqlite: World) -> None:
    """A connection that somebody left read-only in the pool can write in a sandbox."""
    raw: Any = sqlite.engine.raw_connection()
    raw.execute("PRAGMA query_only = ON")
    raw.close()
    with sandbox(sqlite):
        sqlite.add("written")
    raw = sqlite.engine.raw_connection()
    assert (1,) == raw.execute("PRAGMA query_only").fetchone()
    raw.close()


# --- deferred constraints

DEFERRED = """
CREATE TABLE owner (id int PRIMARY KEY);
CREATE TABLE pet (
    id int PRIMARY KEY,
    owner int CONSTRAINT "pet's owner" REFERENCES owner DEFERRABLE INITIALLY DEFERRED,
    friend int CONSTRAINT friend REFERENCES pet DEFERRABLE INITIALLY IMMEDIATE
)
"""
PET = "INSERT INTO pet (id, owner) VALUES (:id, :id)"
OWNER = "INSERT INTO owner (id) VALUES (:id)"


def test_deferred_constraints_surface_at_a_commit(postgresql: World) -> None:
    """A violation of a deferred constraint is raised by the commit, as in production."""
    with sandbox(postgresql):
        with postgresql.engine.begin() as connection:
            connection.exec_driver_sql(DEFERRED)
        with postgresql.engine.connect() as connection:
            connection.execute(sa.text(PET), {"id": 1})
            with pytest.raises(sa.exc.IntegrityError, match="pet's owner"):
                connection.commit()
            connection.rollback()
            assert 0 == connection.scalar(sa.text("SELECT count(*) FROM pet"))


@pytest.mark.parametrize("undo", [False, True])
def test_constraints_are_deferred_again_after_a_commit(postgresql: World, undo: bool) -> None:
    """Later transactions may violate a deferred constraint for a while, and no other."""
    with sandbox(postgresql):
        postgresql.add("before")
        postgresql.add("there are such constraints")
        with postgresql.engine.begin() as connection:
            connection.exec_driver_sql(DEFERRED)
        for number in (1, 2):
            with postgresql.engine.begin() as connection:
                connection.execute(sa.text(PET), {"id": number})
                connection.execute(sa.text(OWNER), {"id": number})
            if undo:
                with postgresql.engine.connect() as connection:
                    connection.execute(sa.text(PET), {"id": 10 + number})
        with postgresql.engine.connect() as connection:
            assert 2 == connection.scalar(sa.text("SELECT count(*) FROM pet"))
            with pytest.raises(sa.exc.IntegrityError, match="friend"):
                connection.exec_driver_sql("INSERT INTO pet (id, friend) VALUES (9, 99)")


def test_a_violation_of_another_session_is_not_ours(postgresql: World) -> None:
    """A commit does not fail for what another session has not made good yet."""
    with sandbox(postgresql):
        with postgresql.engine.begin() as connection:
            connection.exec_driver_sql(DEFERRED)
        with postgresql.engine.connect() as one:
            one.execute(sa.text(PET), {"id": 1})
            postgresql.add("other")
            one.execute(sa.text(OWNER), {"id": 1})
            one.commit()
        assert ["other"] == postgresql.names()
