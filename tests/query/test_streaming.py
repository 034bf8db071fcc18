"""stream: rows one after the other, and a connection that is usable afterwards."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import sqlalchemy as sa

from qapla_db import Database
from qapla_db.errors import InvalidArgument, Misuse
from qapla_db.query.bulk import bulk_insert
from qapla_db.query.streaming import stream
from tests.query.models import Airport, Note

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
