"""How many statements a block sends, from which lines, and none for what is loaded lazily."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import ORMExecuteState, Session

from qapla_db.errors import Misuse, UnexpectedQueries
from qapla_db.testing.listening import Listeners
from qapla_db.testing.places import library_frames, place
from qapla_db.testing.sandboxes.statements import parse, without_passwords

__all__ = ["Queries", "Query", "assert_queries", "no_lazy_loads", "recorded"]

SHOWN = 30
"""Statements that a message shows."""

_THAT_LOAD = frozenset({"delete", "flush", "merge", "refresh"})
"""Methods of a session."""

_TRANSACTIONS = re.compile(
    r"\s*(?:begin|start\s+transaction|set\s+(?:session\s+)?transaction|commit|rollback)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Query:
    """One statement that was sent; its values are nowhere kept.

    :ivar sql: its text.
    :ivar rows: how many sets of values were sent with it at once.
    :ivar place: ``file:line in function`` of the code that sent it, where that is known.
    """

    sql: str
    rows: int
    place: str

    def __str__(self) -> str:
        times = f" [{self.rows} rows]" if self.rows > 1 else ""
        return f"{' '.join(without_passwords(self.sql).split())}{times}\n      {self.place}"


class Queries(Sequence[Query]):
    """The statements of a block, in the order in which they were sent."""

    def __init__(self, match: re.Pattern[str] | None = None) -> None:
        self._match = match
        self._sent: list[Query] = []
        self._lock = threading.Lock()

    def __getitem__(self, index: Any) -> Any:
        return self._sent[index]

    def __len__(self) -> int:
        return len(self._sent)

    def __repr__(self) -> str:
        return f"<{len(self)} statements>"

    def __str__(self) -> str:
        lines = [f"{number:4}. {one}" for number, one in enumerate(self._sent[:SHOWN], 1)]
        more = len(self) - SHOWN
        return "\n".join([*lines, f"      ... and {more} more"] if more > 0 else lines)

    def note(self, sql: str, rows: int) -> None:
        """Note a statement, if it counts."""
        if _is_of_transactions(sql) or (self._match and not self._match.search(sql)):
            return
        query = Query(sql, rows, place())
        with self._lock:
            self._sent.append(query)


@contextmanager
def recorded(match: str | None = None) -> Iterator[Queries]:
    """Record the statements that a block sends: on every engine, in every thread.

    Savepoints, and what begins and ends transactions, do not count: a sandbox makes no
    difference to what is counted.

    :param match: count only statements that this regular expression is found in.
    """
    queries = Queries(re.compile(match, re.IGNORECASE) if match is not None else None)
    _listen()
    with _recording.during(queries):
        yield queries


@contextmanager
def assert_queries(
    *, max: int | None = None, exactly: int | None = None, match: str | None = None
) -> Iterator[Queries]:
    """Assert how many statements a block sends: on every engine, in every thread.

    ::

        with assert_queries(exactly=2) as queries:
            response = testapp.get("/airports")

    A statement with many rows of values counts once. Savepoints, and what begins and ends
    transactions, do not count. An error of the block passes, and nothing is asserted.

    :param max: no more than so many.
    :param exactly: just as many.
    :param match: count only statements that this regular expression is found in.
    :raises UnexpectedQueries: an AssertionError that shows the statements, and the lines
        that sent them.
    :raises Misuse: neither ``max`` nor ``exactly`` is given, or both are.
    """
    if (max is None) == (exactly is None):
        raise Misuse("assert_queries() needs either max= or exactly=, a number of statements")
    with recorded(match) as queries:
        yield queries
    count = len(queries)
    if exactly is not None and count != exactly:
        raise _unexpected(queries, f"exactly {exactly}", match)
    if max is not None and count > max:
        raise _unexpected(queries, f"no more than {max}", match)


def _unexpected(queries: Queries, expected: str, match: str | None) -> UnexpectedQueries:
    kind = "" if match is None else f" that match {match!r}"
    were = "was 1 statement" if len(queries) == 1 else f"were {len(queries)} statements"
    shown = f":\n{queries}" if queries else ""
    return UnexpectedQueries(f"expected {expected} statements{kind}, and there {were}{shown}")


@contextmanager
def no_lazy_loads() -> Iterator[None]:
    """Forbid lazy loading in a block: in every session, in every thread.

    What is forbidden is a query for a relationship, a deferred column or an expired
    instance that happens because an attribute is read. Eager loading is allowed, and what
    ``refresh()``, ``merge()``, ``delete()`` and a flush load by themselves. It is raised
    where the attribute is read; as a thread or a template may swallow that, it is raised
    again at the end of the block.

    :raises UnexpectedQueries: an AssertionError that names the attribute and the line.
    """
    found: list[UnexpectedQueries] = []
    with _listening_to_sessions(), _forbidding.during(found):
        yield
    if found:
        raise found[0]


_recording: Listeners[Queries] = Listeners()
_forbidding: Listeners[list[UnexpectedQueries]] = Listeners()


@cache
def _listen() -> None:
    event.listen(Engine, "before_cursor_execute", _note)


@contextmanager
def _listening_to_sessions() -> Iterator[None]:
    if not event.contains(Session, "do_orm_execute", _forbid):
        event.listen(Session, "do_orm_execute", _forbid)
    try:
        yield
    finally:
        # with any such listener sessions prepare each statement twice, and SQLAlchemy 2.0 cannot
        # stream beside selectinload(); to take it away would disturb threads that just call it
        if not _forbidding.now and threading.active_count() == 1:
            event.remove(Session, "do_orm_execute", _forbid)


def _note(
    connection: Connection, cursor: object, sql: str, values: Any, context: object, many: bool
) -> None:
    for queries in _recording.now:
        queries.note(sql, len(values) if many else 1)


def _forbid(state: ORMExecuteState) -> None:
    found = _forbidding.now
    if not found:
        return
    what = _lazily_loaded(state)
    if what is None or _is_asked_for():
        return
    error = UnexpectedQueries(f"{what} is loaded lazily, by {place()}")
    for errors in found:
        errors.append(error)
    raise error


def _is_asked_for() -> bool:
    """Tell whether a method of a session is under way that loads what it needs."""
    return any(
        frame.f_code.co_name in _THAT_LOAD and frame.f_globals.get("__name__") == Session.__module__
        for frame in library_frames()
    )


def _lazily_loaded(state: ORMExecuteState) -> str | None:
    """Say what a statement loads for an attribute that was read; None for any other."""
    if state.lazy_loaded_from is not None:
        path = state.loader_strategy_path
        key = getattr(path[-1], "key", "a relationship") if path else "a relationship"
        name = f"{state.lazy_loaded_from.class_.__name__}.{key}"
        return f"{name} (load it with the query: selectinload({name}))"
    if not state.is_column_load:
        return None
    mapper = state.bind_mapper
    name = "an instance" if mapper is None else mapper.class_.__name__
    return f"a deferred column of {name}, or all columns of one that is expired,"


@lru_cache(maxsize=1024)
def _is_of_transactions(sql: str) -> bool:
    return parse(sql).kind.is_nesting or bool(_TRANSACTIONS.match(sql))
