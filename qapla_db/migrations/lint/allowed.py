"""Comments in a revision that say that a risk is taken, and why."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Comment", "comments"]

_COMMENT = re.compile(r"#+\s*qapla:\s*(?P<verb>[\w-]+)\s*(?P<what>[^,\s]*)\s*(,\s*(?P<reason>.*))?")


@dataclass(frozen=True)
class Comment:
    """A comment such as ``# qapla: allow drop-column, nobody reads it since 3.2``.

    :param verb: its first word: ``allow``.
    :param what: what it is about: ``drop-column``.
    :param reason: what stands after the comma; empty if there is none.
    :param line: where it stands.
    """

    verb: str
    what: str
    reason: str
    line: int


def comments(path: str) -> Iterator[Comment]:
    """Yield the comments of a revision's file that are meant for us."""
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            if match := _COMMENT.match(token.string):
                reason = (match["reason"] or "").strip()
                yield Comment(match["verb"], match["what"], reason, token.start[0])
