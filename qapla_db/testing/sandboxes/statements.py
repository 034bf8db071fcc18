"""What a sandbox has to know about a statement before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

__all__ = ["Kind", "Statement", "parse"]


class Kind(Enum):
    """What a statement does to a transaction."""

    READ = auto()
    LOCK = auto()
    """Reads, and makes other transactions wait that want the same rows."""
    WRITE = auto()
    DEFINE = auto()
    """Changes the schema or rights."""
    OTHER = auto()
    """Anything else, such as SET or CALL; it may write."""
    SAVEPOINT = auto()
    RELEASE = auto()
    ROLLBACK_TO = auto()

    @property
    def is_nesting(self) -> bool:
        return self in (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)

    @property
    def may_write(self) -> bool:
        return self in (Kind.WRITE, Kind.DEFINE, Kind.OTHER)

    @property
    def takes_turns(self) -> bool:
        return self.may_write or self is Kind.LOCK


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's kind, and for savepoint statements the name in it."""

    kind: Kind
    savepoint: str = ""


_LEADING = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*", re.DOTALL)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_NESTING = re.compile(
    r"(?P<verb>savepoint|release(?:\s+savepoint)?"
    r"|rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)\s+(?P<name>\S+?)\s*;?\s*$",
    re.IGNORECASE,
)
_WRITES_INSIDE = re.compile(r"\b(?:insert|update|delete|merge)\b", re.IGNORECASE)
_INTO_TABLE = re.compile(r"\binto\s+(?!@|outfile\b|dumpfile\b)", re.IGNORECASE)
_SEVERAL = re.compile(r";\s*\S")
_TEXTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`")
_LOCKS = re.compile(
    r"\bfor\s+(?:no\s+key\s+|key\s+)?(?:update|share)\b|\block\s+in\s+share\s+mode\b",
    re.IGNORECASE,
)
# of its transaction alone, or of MariaDB's connection
_SET_LOCAL = re.compile(r"set\s+local\s+(?!transaction\b)[^;]*;?\s*$", re.IGNORECASE)
_WORDS = {
    Kind.READ: "select values table show describe desc pragma explain with",
    Kind.WRITE: "insert update delete merge replace truncate copy load import",
    Kind.DEFINE: "create alter drop rename comment grant revoke reindex",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}


@lru_cache(maxsize=1024)
def parse(statement: str) -> Statement:
    """Tell what a statement does, from its text alone.

    A call of a function that writes looks like a read.
    """
    start = _LEADING.match(statement)
    body = statement[start.end() :] if start else statement
    nesting = _NESTING.match(body)
    if nesting:
        return Statement(_nesting_kind(nesting["verb"]), _identity(nesting["name"]))
    if _SET_LOCAL.match(body):
        return Statement(Kind.READ)
    match = _WORD.match(body)
    word = match[0].lower() if match else ""
    kind = _KINDS.get(word, Kind.OTHER)
    return Statement(_read_kind(word, body) if kind is Kind.READ else kind)


def _read_kind(word: str, body: str) -> Kind:
    body = _TEXTS.sub("", body)
    if _LOCKS.search(body):
        return Kind.LOCK
    if word in ("select", "with") and _INTO_TABLE.search(body):
        return Kind.DEFINE
    if word in ("with", "explain") and _WRITES_INSIDE.search(body):
        return Kind.WRITE
    if _SEVERAL.search(body) or (word == "pragma" and "=" in body):
        return Kind.OTHER
    return Kind.READ


def _nesting_kind(verb: str) -> Kind:
    if verb.lower().startswith("savepoint"):
        return Kind.SAVEPOINT
    return Kind.RELEASE if verb.lower().startswith("release") else Kind.ROLLBACK_TO


def _identity(name: str) -> str:
    if name[0] in '"`[':
        return name[1:-1]
    return name.lower()
