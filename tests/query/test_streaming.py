"""stream: rows one after the other, and a connection that is usable afterwards."""

from __future__ import annotations

import contextlib
import tracemalloc
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import joinedload, selectinload

from qapla_db import Database
from qapla_db.errors import InvalidArgument, Misuse
from qapla_db.query.bulk import bulk_insert
from qapla_db.query.streaming import stream
from tests.query.models import Airport, City, Note, Street

COUNT = 5000


def fill(session: Any, count: int = COUNT) -> None:
    rows = ({"title": f"{at}" * 5, "stars": at} for at in range(count))
    assert count == bulk_insert(session, Note, rows)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_objects_of_a_model(database: Database, chunk: int) -> None:
    """A model yields its objects, all of them, in parts of any size."""
    with database.session() as session:
        fill(session, 20)
        stars = [note.stars for note in stream(session, Note, chunk=chunk)]
        assert list(range(20)) == sorted(one for one in stars if one is not None)


def test_rows_and_values_of_a_select(database: Database) -> None:
    """A select of one column yields values, one of several yields rows."""
    with database.session() as session:
        fill(session, 3)
        assert [0, 1, 2] == list(stream(session, sa.select(Note.stars).order_by(Note.stars)))
        both = sa.select(Note.stars, Note.title).order_by(Note.stars)
        assert [(0, "00000"), (1, "11111"), (2, "22222")] == list(stream(session, both))


def test_a_session_that_only_reads(database: Database) -> None:
    """A read-only session streams too, and its stream ends with its transaction."""
    with database.transaction() as session:
        fill(session, 10)
    with database.session(read_only=True) as session:
        assert 10 == len(list(stream(session, Note)))
        found = stream(session, Note, chunk=2)
        next(found)
        session.rollback()
        with pytest.raises(Misuse, match="has ended"):
            next(found)


def test_pending_objects_are_seen(database: Database) -> None:
    """What was added to the session is flushed first."""
    with database.session() as session:
        session.add(Airport(code="A", name="a"))
        assert ["A"] == [one.code for one in stream(session, Airport)]


def test_a_stream_given_up_early_leaves_a_usable_connection(database: Database) -> None:
    """After close() the session runs other statements, and commits."""
    with database.session() as session:
        fill(session)
        rows = stream(session, Note, chunk=10)
        assert next(rows) is not None
        rows.close()
        assert COUNT == session.scalar(sa.select(sa.func.count()).select_from(Note))
        session.commit()


def test_objects_are_not_kept(database: Database) -> None:
    """The memory for many objects is that for a few."""
    with database.session() as session:
        fill(session)
        session.commit()
        list(stream(session, Note, chunk=50))
        session.rollback()
        tracemalloc.start()
        try:
            for _ in stream(session, Note, chunk=50):
                pass
            used = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert used < 600_000, used


@pytest.mark.parametrize("chunk", [0, -1, True, "10"])
def test_a_chunk_is_a_number_of_rows(memory: Database, chunk: Any) -> None:
    """What is none is refused by the call, before the first row is asked for."""
    with memory.session() as session:
        with pytest.raises(InvalidArgument):
            stream(session, Note, chunk=chunk)


def test_what_cannot_be_read(memory: Database) -> None:
    """A target that is neither model nor select is refused by the call."""
    with memory.session() as session:
        with pytest.raises(Misuse):
            stream(session, int)


def test_another_statement_in_the_loop(database: Database) -> None:
    """It gives its answer, or is refused where it would cut the stream off; no row is lost."""
    with database.session() as session:
        fill(session, 50)
        session.commit()
        refuses = database.engine.dialect.name in ("mysql", "mariadb")
        seen = 0
        for _ in stream(session, Note, chunk=10):
            seen += 1
            if not refuses:
                assert 50 == session.scalar(sa.select(sa.func.count()).select_from(Note))
                continue
            with pytest.raises(Misuse, match="second session"):
                session.scalar(sa.select(1))
            with pytest.raises(Misuse, match="second session"):
                bulk_insert(session, Note, [{"title": "x"}])
        assert 50 == seen
        assert 50 == session.scalar(sa.select(sa.func.count()).select_from(Note))
        session.add(Note(title="last"))
        session.commit()


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
@pytest.mark.parametrize("chunk", [10, 1000])
def test_the_transaction_ends_in_the_loop(database: Database, end: str, chunk: int) -> None:
    """The next row is a clear error, and what the session does since then is not disturbed."""
    with database.session() as session, database.session() as other:
        fill(session, 50)
        session.commit()
        rows = stream(session, Note, chunk=chunk)
        next(rows)
        getattr(session, end)()
        current = other if end == "close" else session
        current.add(Note(title="since"))
        current.flush()
        with pytest.raises(Misuse, match="transaction of this stream has ended"):
            next(rows)
        current.commit()
        assert 51 == current.scalar(sa.select(sa.func.count()).select_from(Note))


def test_the_savepoint_of_a_stream_is_rolled_back(database: Database) -> None:
    """The next row is a clear error, and the transaction around the savepoint goes on."""
    with database.session() as session:
        fill(session, 50)
        savepoint = session.begin_nested()
        rows = stream(session, Note, chunk=10)
        next(rows)
        savepoint.rollback()
        with pytest.raises(Misuse, match="ended"):
            next(rows)
        session.commit()
        assert 50 == session.scalar(sa.select(sa.func.count()).select_from(Note))


@pytest.mark.parametrize("within", [False, True])
def test_a_savepoint_in_the_loop_is_rolled_back(database: Database, within: bool) -> None:
    """A savepoint that began after the stream does not end it; one around it does."""
    with database.session() as session:
        fill(session, 50)
        if database.engine.dialect.name in ("mysql", "mariadb"):
            return  # which run no statement in the loop
        outer = session.begin_nested() if within else None
        rows = stream(session, Note, chunk=10)
        for _ in range(15):
            next(rows)
            with contextlib.suppress(sa.exc.IntegrityError), session.begin_nested():
                session.execute(sa.insert(Note).values(title=None))
        inner = session.begin_nested()
        with session.begin_nested():
            next(rows)
        inner.rollback()
        assert 50 - 16 == sum(1 for _ in rows)
        if outer is not None:
            rows = stream(session, Note, chunk=10)
            next(rows)
            outer.rollback()
            with pytest.raises(Misuse, match="ended"):
                next(rows)


def test_what_is_stored_in_the_loop_is_not_read(database: Database) -> None:
    """A stream ends, and has the rows of its beginning, also where each makes another."""
    with database.session() as session:
        fill(session, 50)
        if database.engine.dialect.name in ("mysql", "mariadb"):
            return  # which run no statement in the loop
        copies = ({"title": one.title, "stars": 1} for one in stream(session, Note, chunk=10))
        assert 50 == bulk_insert(session, Note, islice(copies, 1000), chunk=10)
        seen = 0
        for note in stream(session, sa.select(Note).order_by(Note.stars), chunk=10):
            seen += 1
            note.stars = 1000 + seen
            session.add(Note(title="again", stars=2000 + seen))
            session.flush()
            assert seen <= 100
        assert 100 == seen
        assert 200 == session.scalar(sa.select(sa.func.count()).select_from(Note))


def test_selects_of_any_form(database: Database) -> None:
    """A stream yields what the select does: names used twice, WITH, parameters, entities."""
    with database.session() as session:
        session.add(City(code="A", name="a", streets=[Street(name="s"), Street(name="t")]))
        some = sa.select(Street.id).where(Street.name == "t").cte("some")
        selects: list[Any] = [
            sa.select(City, Street).join(Street).order_by(Street.id),
            sa.select(City.name, Street.name, sa.literal(5)).join(Street).order_by(Street.name),
            sa.select(Street.name, Street.name.label("x.y")).order_by(Street.name.desc()),
            sa.select(Street.name).join(some, some.c.id == Street.id),
            sa.select(sa.union_all(sa.select(City.name), sa.select(Street.name)).subquery()),
            sa.select(Street.name).order_by(Street.id.desc()).limit(1).offset(1),
            sa.select(sa.func.now()),
        ]
        if database.engine.dialect.name not in ("mysql", "mariadb"):
            selects.append(sa.select(City).options(selectinload(City.streets)))
        for select in selects:
            wanted = session.execute(select).all()
            got = list(stream(session, select, chunk=1))
            if len(select.column_descriptions) == 1:
                assert [row[0] for row in wanted] == got
            else:
                assert wanted == got
                assert [row._fields for row in wanted] == [row._fields for row in got]


def test_collections_by_joins(database: Database) -> None:
    """They are refused, since their rows could be in two chunks."""
    with database.session() as session:
        eager = sa.select(City).options(joinedload(City.streets))
        with pytest.raises(InvalidArgument, match="leave joinedload"):
            next(stream(session, eager))
        assert [] == list(stream(session, City))
