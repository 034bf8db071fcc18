"""A session to read with: what is left of one when it cannot write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase

from qapla_db.errors import ReadOnlyError
from qapla_db.query.texts import text_writes

__all__ = ["QUIET", "ReadingSession", "check_parts"]

M = TypeVar("M")

Readable: TypeAlias = "sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]]"

_BETWEEN = r"""|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*(?!!).*?\*/"""
_QUOTED = re.compile(rf"""'[^']*'|"[^"]*"|`[^`]*`{_BETWEEN}""", re.DOTALL)
_QUOTED_ESCAPED = re.compile(
    rf"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`{_BETWEEN}""", re.DOTALL
)
"""What is no word of a statement: texts, quoted names and comments."""

_CHANGES = re.compile(
    r";|\binto\b|\bdelete\s+from\b|\bupdate\b.*\bset\b", re.IGNORECASE | re.DOTALL
)
"""What has no place in a part of a statement that reads: INTO goes with INSERT and SELECT alike."""

QUIET = sa.util.immutabledict({"autoflush": False})
"""Execution options of what is read without a flush before it."""


class ReadingSession:
    """Runs selects in a session, and nothing else: no flush, no changes, no commit.

    :param session: the session that it reads with.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, model: type[M], id: Any) -> M | None:
        """As :meth:`sqlalchemy.orm.Session.get`."""
        return self._session.get(model, id, execution_options=QUIET)

    def execute(self, statement: Readable) -> sa.Result[*tuple[Any, ...]]:
        """As :meth:`sqlalchemy.orm.Session.execute`, of a select.

        :raises ReadOnlyError: it is none, or one that changes data.
        """
        _check_reads(statement)
        return self._session.execute(statement, execution_options=QUIET)

    def scalars(self, statement: Readable) -> sa.ScalarResult[Any]:
        """As :meth:`sqlalchemy.orm.Session.scalars`, of a select.

        :raises ReadOnlyError: it is none, or one that changes data.
        """
        _check_reads(statement)
        return self._session.scalars(statement, execution_options=QUIET)

    def scalar(self, statement: Readable) -> Any:
        """As :meth:`sqlalchemy.orm.Session.scalar`, of a select.

        :raises ReadOnlyError: it is none, or one that changes data.
        """
        _check_reads(statement)
        return self._session.scalar(statement, execution_options=QUIET)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Session, name):
            raise AttributeError(f"a session to read with has no attribute {name!r}")
        raise ReadOnlyError(
            f"{name}() is not there in a ReadDriver, whose session runs selects only: execute(), "
            "scalars(), scalar(), get(). Use a WriteDriver to change data"
        )


def _check_reads(statement: Any) -> None:
    if not isinstance(statement, sa.Select | sa.CompoundSelect):
        raise ReadOnlyError(
            f"a ReadDriver runs selects, and this is {type(statement).__name__}; use a "
            "WriteDriver to change data, or the caller's own session for what no select says"
        )
    check_parts([statement])


def check_parts(parts: Iterable[sa.ClauseElement]) -> None:
    """Raise for what would change data from inside a select.

    What a function or an operator of one's own does cannot be seen.

    :param parts: selects, or clauses of one.
    :raises ReadOnlyError: one of them holds an insert, update or delete, or a text that
        writes or goes on to a second statement.
    """
    if any(_changes(inside) for part in parts for inside in visitors.iterate(part)):
        raise ReadOnlyError("this select changes data on the way; use a WriteDriver")


def _changes(part: Any) -> bool:
    if isinstance(part, sa.TextualSelect):
        text = part.element
        return isinstance(text, sa.TextClause) and text_writes(text.text, for_sure=False)
    if isinstance(part, UpdateBase):
        return True
    return any(map(_text_changes, _texts_of(part)))


def _texts_of(part: Any) -> Iterator[str]:
    if isinstance(part, sa.TextClause):
        yield part.text
    elif isinstance(part, sa.ColumnClause) and part.is_literal:
        yield part.name
    elif isinstance(part, sa.Select):
        yield from (hint for _, hint in part._statement_hints)
        yield from part._hints.values()
        for added, _ in (*part._prefixes, *part._suffixes):
            yield from _texts_of(added)


def _text_changes(text: str) -> bool:
    # whether a backslash escapes a quote depends on the server, so that both are looked at
    return any(_CHANGES.search(quoted.sub(" ", text)) for quoted in (_QUOTED, _QUOTED_ESCAPED))
