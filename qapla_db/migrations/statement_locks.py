"""What a statement locks on PostgreSQL, read off its text (documentation, 13.3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from qapla_db.migrations.sqltext import (
    ALTER_TABLE,
    CREATE_TABLE,
    TRUNCATE,
    actions_of,
    bare,
    names_of,
    pattern,
    split,
)

__all__ = ["UNKNOWN", "Lock", "locks_of"]

_BLOCKS = {
    "ROW EXCLUSIVE": "writers of the same rows, and schema changes",
    "SHARE UPDATE EXCLUSIVE": "schema changes; reads and writes go on",
    "SHARE": "all writes; reads go on",
    "SHARE ROW EXCLUSIVE": "all writes; reads go on",
    "EXCLUSIVE": "all writes; reads go on",
    "ACCESS EXCLUSIVE": "all reads and writes",
}
_STRENGTH = list(_BLOCKS)


@dataclass(frozen=True)
class Lock:
    """A lock that a statement takes, and its transaction keeps to its end.

    :param table: the table; for an index that is dropped, ``the table of`` it; None where
        it is not known what else is locked.
    :param mode: PostgreSQL's name of the mode, such as ``ACCESS EXCLUSIVE``.
    :param blocks: what others cannot do meanwhile.
    """

    table: str | None
    mode: str
    blocks: str

    def __str__(self) -> str:
        if self.table is None:
            return "perhaps anything: it is not known"
        return f"{self.table}: {self.mode}, blocks {self.blocks}"

    def as_json(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


UNKNOWN = Lock(None, "not known", "perhaps all reads and writes of any table")
"""Of a statement that is none of the known ones, or takes others with it."""


def locks_of(sql: str) -> tuple[Lock, ...]:
    """Return what a statement locks, the strongest lock of each table.

    :returns: :data:`UNKNOWN` is the last of them if there may be others.
    """
    strongest: dict[str, str] = {}
    is_known = True
    for statement in split(sql):
        found = _locks(statement)
        is_known &= found is not None and not _OTHERS.search(statement)
        for table, mode in found or ():
            strongest[table] = max(strongest.get(table, mode), mode, key=_STRENGTH.index)
    locks = (Lock(table, mode, _BLOCKS[mode]) for table, mode in strongest.items())
    return (*locks, *(() if is_known else (UNKNOWN,)))


_OTHERS = pattern(r" CASCADE(?:,|$)|^DROP OWNED ")
_FOREIGN_KEYS = "what the foreign keys of {} refer to that go with it"
_REFERENCES = pattern(r"\bREFERENCES NAME")
_PARENT = pattern(r"\b(?:PARTITION OF|INHERITS ?\() ?NAME")
_DROP = pattern(
    r"DROP (TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE) (?:IF EXISTS )?(.+?)(?: CASCADE| RESTRICT)?$"
)
_LOCK = pattern(r"LOCK (?:TABLE )?(?:ONLY )?(.+?)(?: IN (.+) MODE)?(?: NOWAIT)?$")
_FULL = r"(?:\([^)]*\bFULL\b[^)]*\)|FULL(?: (?:FREEZE|VERBOSE|ANALYZE))*)"
_OPTIONS = r"(?:\([^)]*\) ?|(?:FREEZE |VERBOSE |ANALYZE )*)"

_ONE_TABLE = {
    r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY .*?\bON (?:ONLY )?NAME": "SHARE UPDATE EXCLUSIVE",
    r"CREATE (?:UNIQUE )?INDEX .*?\bON (?:ONLY )?NAME": "SHARE",
    r"COMMENT ON (?:TABLE|COLUMN) NAME": "SHARE UPDATE EXCLUSIVE",
    r"(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO) (?:ONLY )?NAME": "ROW EXCLUSIVE",
    r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER .*?\bON NAME": "SHARE ROW EXCLUSIVE",
    r"DROP TRIGGER (?:IF EXISTS )?.*?\bON NAME": "ACCESS EXCLUSIVE",
    rf"VACUUM ?{_FULL} ?NAME": "ACCESS EXCLUSIVE",
    rf"VACUUM ?(?!FULL\b){_OPTIONS}NAME": "SHARE UPDATE EXCLUSIVE",
    rf"CLUSTER {_OPTIONS}NAME": "ACCESS EXCLUSIVE",
    r"ANALYZE NAME$": "SHARE UPDATE EXCLUSIVE",
    r"REINDEX (?:\([^)]*\) ?)?TABLE CONCURRENTLY NAME": "SHARE UPDATE EXCLUSIVE",
    r"REINDEX \([^)]*\bCONCURRENTLY\b[^)]*\) ?TABLE NAME": "SHARE UPDATE EXCLUSIVE",
    r"REINDEX (?:\([^)]*\) ?)?TABLE NAME": "SHARE",
    r"REFRESH MATERIALIZED VIEW CONCURRENTLY NAME": "EXCLUSIVE",
    r"REFRESH MATERIALIZED VIEW NAME": "ACCESS EXCLUSIVE",
    r"(?:CREATE OR REPLACE|ALTER|ALTER MATERIALIZED) VIEW (?:IF EXISTS )?NAME": "ACCESS EXCLUSIVE",
    r"ALTER SEQUENCE (?:IF EXISTS )?NAME (?:RENAME|SET|OWNER TO)\b": "ACCESS EXCLUSIVE",
    r"ALTER SEQUENCE (?:IF EXISTS )?NAME": "SHARE ROW EXCLUSIVE",
}
_TABLES = [(pattern(text), mode) for text, mode in _ONE_TABLE.items()]
_INDEXES = [
    (pattern(r"(?:DROP|REINDEX) INDEX CONCURRENTLY (?:IF EXISTS )?NAME"), "SHARE UPDATE EXCLUSIVE"),
    (pattern(r"DROP INDEX (?:IF EXISTS )?NAME"), "ACCESS EXCLUSIVE"),
    (pattern(r"REINDEX INDEX NAME"), "SHARE"),
]
_NOTHING = pattern(
    r"(?:BEGIN|COMMIT|SAVEPOINT|RELEASE|SET|RESET|SELECT pg_catalog\.|"
    r"CREATE (?:OR REPLACE )?(?:TEMP(?:ORARY)? )?(?:SEQUENCE|VIEW|MATERIALIZED VIEW|EXTENSION)|"
    r"CREATE (?:OR REPLACE )?(?:TYPE|SCHEMA|FUNCTION|PROCEDURE|DOMAIN|ROLE)|"
    r"ALTER (?:SCHEMA|FUNCTION|PROCEDURE|ROLE)|"
    r"ALTER TYPE NAME (?:ADD VALUE|RENAME (?:TO|VALUE)|OWNER TO)|"
    r"DROP (?:TYPE|SCHEMA|FUNCTION|PROCEDURE|DOMAIN|ROLE)|"
    r"ALTER INDEX NAME RENAME)\b"
)

_GENTLE = {
    # what an action of ALTER TABLE needs, where it is less than ACCESS EXCLUSIVE
    r"VALIDATE CONSTRAINT": "SHARE UPDATE EXCLUSIVE",
    r"ALTER (?:COLUMN )?NAME SET (?:STATISTICS|\()": "SHARE UPDATE EXCLUSIVE",
    r"SET (?:\(|WITHOUT CLUSTER)": "SHARE UPDATE EXCLUSIVE",
    r"CLUSTER ON": "SHARE UPDATE EXCLUSIVE",
    r"ATTACH PARTITION|DETACH PARTITION NAME CONCURRENTLY": "SHARE UPDATE EXCLUSIVE",
    r"ADD (?:CONSTRAINT NAME )?FOREIGN KEY": "SHARE ROW EXCLUSIVE",
    r"(?:ENABLE|DISABLE) (?:REPLICA |ALWAYS )?TRIGGER": "SHARE ROW EXCLUSIVE",
}
_ACTIONS = [(pattern(text), mode) for text, mode in _GENTLE.items()]

_PARTITION = pattern(r"(?:ATTACH|DETACH) PARTITION NAME")
_INHERIT = pattern(r"INHERIT NAME")
_DROPPING = pattern(r"DROP (?!EXPRESSION|IDENTITY)")

Found = Iterator[tuple[str, str]]


def _locks(statement: str) -> Found | None:
    """Yield what a statement locks, or return None where that is not known."""
    if match := ALTER_TABLE.match(statement):
        return _altered(bare(match[1]), match[2])
    if CREATE_TABLE.match(statement):
        return _referred(statement)
    if match := _DROP.match(statement):
        return _dropped(match[1].upper(), match[2])
    if match := TRUNCATE.match(statement):
        return ((name, "ACCESS EXCLUSIVE") for name in names_of(match[1]))
    if match := _LOCK.match(statement):
        mode = (match[2] or "ACCESS EXCLUSIVE").upper()  # a weaker one than ours stops nobody
        return ((name, mode) for name in names_of(match[1]) if mode in _BLOCKS)
    for known, mode in _TABLES:
        if match := known.match(statement):
            # COMMENT ON COLUMN names the column behind the table
            is_column = re.match(r"COMMENT ON COLUMN", statement, re.IGNORECASE)
            table = bare(match[1]).rpartition(".")[0] if is_column else bare(match[1])
            return iter([(table, mode)])
    for known, mode in _INDEXES:
        if match := known.match(statement):
            return iter([(f"the table of {bare(match[1])}", mode)])
    return iter(()) if _NOTHING.match(statement) else None


def _dropped(kind: str, names: str) -> Found:
    for name in names_of(names):
        yield name, "ACCESS EXCLUSIVE"
        if kind == "TABLE":
            yield _FOREIGN_KEYS.format(name), "ACCESS EXCLUSIVE"


def _altered(table: str, actions: str) -> Found:
    for action in actions_of(actions):
        gentle = [mode for known, mode in _ACTIONS if known.match(action)]
        yield table, gentle[0] if gentle else "ACCESS EXCLUSIVE"
        if match := _PARTITION.match(action):
            yield bare(match[1]), "ACCESS EXCLUSIVE"
        elif match := _INHERIT.match(action):
            yield bare(match[1]), "SHARE UPDATE EXCLUSIVE"
        elif _DROPPING.match(action):
            yield _FOREIGN_KEYS.format(table), "ACCESS EXCLUSIVE"
    yield from _referred(actions)


def _referred(text: str) -> Found:
    """A new foreign key puts triggers on the table that it refers to; a part is put into it."""
    for match in _REFERENCES.finditer(text):
        yield bare(match[1]), "SHARE ROW EXCLUSIVE"
    for match in _PARENT.finditer(text):
        is_partition = match[0].upper().startswith("PARTITION")
        yield bare(match[1]), "ACCESS EXCLUSIVE" if is_partition else "SHARE UPDATE EXCLUSIVE"
