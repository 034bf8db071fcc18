"""What a sandbox has to know about a statement before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

__all__ = ["Kind", "Statement", "parse", "without_passwords"]


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
    """A statement's kind, and for savepoint statements the name in it.

    :ivar calls: it reads, and calls a function that may write.
    """

    kind: Kind
    savepoint: str = ""
    calls: bool = False


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
# words before a parenthesis that call nothing, and functions of the servers that write nothing
_HARMLESS = """
select from where and or not in exists any all some as on using join lateral values over filter
group by having union intersect except case when then else between like limit offset array row
cast extract interval distinct materialized order partition within return is returning only set
char varchar character numeric decimal float binary bit time timestamp count sum avg min max
array_agg string_agg group_concat json_agg jsonb_agg json_object_agg bool_and bool_or every
row_number rank dense_rank lag lead first_value last_value ntile coalesce nullif greatest least
lower upper length char_length trim ltrim rtrim substr substring replace concat concat_ws position
left right lpad rpad format round floor ceil ceiling abs mod power sqrt sign random rand now
current_timestamp date date_trunc date_part age to_char to_date to_timestamp strftime julianday
datetime unix_timestamp from_unixtime date_format year month day hour minute second timestampdiff
json_extract json_array_length jsonb_array_length json_build_object jsonb_build_object
json_array_elements jsonb_array_elements to_json to_jsonb unnest generate_series array_length
cardinality nextval currval lastval setval last_insert_id current_setting set_config to_regclass
version pg_backend_pid connection_id pg_sleep sleep database schema user current_database
current_schema typeof total_changes changes last_insert_rowid to_tsvector to_tsquery
plainto_tsquery websearch_to_tsquery ts_rank similarity if ifnull iif instr printf
hashtextextended md5 sha256 encode decode convert regexp_replace regexp_matches
"""
_PASSWORDS = re.compile(
    r"(\bpassword\s*(?:[=(]\s*|(?<=\s))|\bpassword\s+for\s+\S+\s*=\s*"
    r"|\bidentified\s+(?:by|(?:with|via)\s+\S+\s+(?:by|as|using))\s+)'(?:[^']|'')*'",
    re.IGNORECASE,
)
_CALLS = re.compile(r"(?:(\w+)\s*\.\s*)?\b([a-z_]\w*)\s*\(", re.IGNORECASE)
_CALL_NOTHING = frozenset(_HARMLESS.split())
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
    if kind is not Kind.READ:
        return Statement(kind)
    body = _TEXTS.sub(" q ", body)
    return Statement(_read_kind(word, body), calls=_may_call(body))


def without_passwords(statement: str) -> str:
    """Return a statement, to be shown, with three stars for each password that it sets."""
    return _PASSWORDS.sub(r"\1'***'", statement)


def _may_call(body: str) -> bool:
    return any(
        schema.lower() != "pg_catalog" and (schema or name.lower() not in _CALL_NOTHING)
        for schema, name in _CALLS.findall(body)
    )


def _read_kind(word: str, body: str) -> Kind:
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
