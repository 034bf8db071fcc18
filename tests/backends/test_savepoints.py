"""Savepoints, as engines of ours send them."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import FreshURL
from tests.support import make_application


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_savepoints_keep_and_undo(fresh_url: FreshURL, kind: str) -> None:
    """What a savepoint holds is kept or undone, and listeners see each statement."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        seen.append(statement)

    with make_application({"main": fresh_url(kind)}) as app:
        database = app.dbs["main"]
        database.create()
        with database.engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE points (x INTEGER)")
            connection.commit()
            sa.event.listen(database.engine, "before_cursor_execute", note)
            connection.exec_driver_sql("INSERT INTO points VALUES (1)")
            with connection.begin_nested():
                connection.exec_driver_sql("INSERT INTO points VALUES (2)")
                undone = connection.begin_nested()
                connection.exec_driver_sql("INSERT INTO points VALUES (3)")
                undone.rollback()
            connection.commit()
            assert [1, 2] == list(connection.scalars(sa.text("SELECT x FROM points ORDER BY x")))
    assert [
        "SAVEPOINT sa_savepoint_1",
        "SAVEPOINT sa_savepoint_2",
        "ROLLBACK TO SAVEPOINT sa_savepoint_2",
        "RELEASE SAVEPOINT sa_savepoint_1",
    ] == [statement for statement in seen if "SAVEPOINT" in statement]


def test_savepoint_on_a_lost_connection(fresh_url: FreshURL) -> None:
    """Where the connection is lost the error is SQLAlchemy's, and the next one works."""
    with make_application({"main": fresh_url("postgresql")}) as app:
        database = app.dbs["main"]
        database.create()
        with database.engine.connect() as connection:
            number = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            with database.engine.begin() as other:
                stop = sa.text("SELECT pg_terminate_backend(:number, 5000)")
                other.execute(stop, {"number": number})
            with pytest.raises(sa.exc.DBAPIError) as caught:
                connection.begin_nested()
            assert caught.value.connection_invalidated
        with database.engine.connect() as connection:
            assert 1 == connection.scalar(sa.text("SELECT 1"))
