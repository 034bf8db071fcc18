"""What a statement locks on PostgreSQL, read off its text (documentation, 13.3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from qapla_db.migrations.sqltext import CREATE_TABLE, actions_of, bare, pattern, split

__all__ = ["Lock", "locks_of"]

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

    :param table: the table; for an index that is dropped, ``the table of`` it.
    :param mode: PostgreSQL's name of the mode, such as ``ACCESS EXCLUSIVE``.
    :param blocks: what others cannot do meanwhile.
    """

    table: str
    mode: str
    blocks: str

    def __str__(self) -> str:
        return f"{self.table}: {self.mode}, blocks {self.blocks}"

    def as_json(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


def locks_of(sql: str) -> tuple[Lock, ...] | None:
    """Return what a statement locks, the strongest lock of each table.

    :returns: None if a statement is none of those that are known here.
    """
    strongest: dict[str, str] = {}
    for statement in split(sql):
        found = _locks(statement)
        if found is None:
            return None
        for table, mode in found:
            strongest[table] = max(strongest.get(table, mode), mode, key=_STRENGTH.index)
    return tuple(Lock(table, mode, _BLOCKS[mode]) for table, mode in strongest.items())


_ALTER_TABLE = pattern(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?NAME\*? (.+)$")
_REFERENCES = pattern(r"\bREFERENCES NAME")
_DROP_TABLE = pattern(r"DROP TABLE (?:IF EXISTS )?(.+?)(?: CASCADE| RESTRICT)?$")
_TRUNCATE = pattern(
    r"TRUNCATE (?:TABLE )?(?:ONLY )?(.+?)"
    r"(?: (?:RESTART|CONTINUE) IDENTITY)?(?: CASCADE| RESTRICT)?$"
)

_ONE_TABLE = {
    r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY .*?\bON (?:ONLY )?NAME": "SHARE UPDATE EXCLUSIVE",
    r"CREATE (?:UNIQUE )?INDEX .*?\bON (?:ONLY )?NAME": "SHARE",
    r"COMMENT ON (?:TABLE|COLUMN) NAME": "SHARE UPDATE EXCLUSIVE",
    r"(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO) (?:ONLY )?NAME": "ROW EXCLUSIVE",
    r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER .*?\bON NAME": "SHARE ROW EXCLUSIVE",
    r"DROP TRIGGER (?:IF EXISTS )?.*?\bON NAME": "ACCESS EXCLUSIVE",
    r"LOCK (?:TABLE )?(?:ONLY )?NAME$": "ACCESS EXCLUSIVE",
    r"(?:VACUUM|CLUSTER)(?: VERBOSE)? (?:FULL )NAME": "ACCESS EXCLUSIVE",
    r"ANALYZE NAME": "SHARE UPDATE EXCLUSIVE",
    r"REFRESH MATERIALIZED VIEW CONCURRENTLY NAME": "EXCLUSIVE",
    r"REFRESH MATERIALIZED VIEW NAME": "ACCESS EXCLUSIVE",
}
_TABLES = [(pattern(text), mode) for text, mode in _ONE_TABLE.items()]
_INDEXES = [
    (pattern(r"DROP INDEX CONCURRENTLY (?:IF EXISTS )?NAME"), "SHARE UPDATE EXCLUSIVE"),
    (pattern(r"DROP INDEX (?:IF EXISTS )?NAME"), "ACCESS EXCLUSIVE"),
]
_NOTHING = pattern(
    r"(?:BEGIN|COMMIT|SET|RESET|SELECT pg_catalog\.|"
    r"(?:CREATE|ALTER|DROP) (?:OR REPLACE )?"
    r"(?:TYPE|SEQUENCE|SCHEMA|EXTENSION|FUNCTION|PROCEDURE|VIEW|DOMAIN|ROLE)|"
    r"ALTER INDEX NAME RENAME)\b"
)

_GENTLE = {
    # what an action of ALTER TABLE needs, where it is less than ACCESS EXCLUSIVE
    r"VALIDATE CONSTRAINT": "SHARE UPDATE EXCLUSIVE",
    r"ALTER (?:COLUMN )?NAME SET (?:STATISTICS|\()": "SHARE UPDATE EXCLUSIVE",
    r"SET (?:\(|WITHOUT CLUSTER)": "SHARE UPDATE EXCLUSIVE",
    r"CLUSTER ON": "SHARE UPDATE EXCLUSIVE",
    r"ATTACH PARTITION": "SHARE UPDATE EXCLUSIVE",
    r"ADD (?:CONSTRAINT NAME )?FOREIGN KEY": "SHARE ROW EXCLUSIVE",
    r"(?:ENABLE|DISABLE) (?:REPLICA |ALWAYS )?TRIGGER": "SHARE ROW EXCLUSIVE",
}
_ACTIONS = [(pattern(text), mode) for text, mode in _GENTLE.items()]

Found = Iterator[tuple[str, str]]


def _locks(statement: str) -> Found | None:
    if match := _ALTER_TABLE.match(statement):
        return _altered(bare(match[1]), match[2])
    if CREATE_TABLE.match(statement):
        return _referred(statement)
    if match := _DROP_TABLE.match(statement) or _TRUNCATE.match(statement):
        return ((bare(name), "ACCESS EXCLUSIVE") for name in actions_of(match[1]))
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


def _altered(table: str, actions: str) -> Found:
    for action in actions_of(actions):
        gentle = [mode for known, mode in _ACTIONS if known.match(action)]
        yield table, gentle[0] if gentle else "ACCESS EXCLUSIVE"
    yield from _referred(actions)


def _referred(text: str) -> Found:
    """A new foreign key puts triggers on the table that it refers to."""
    for match in _REFERENCES.finditer(text):
        yield bare(match[1]), "SHARE ROW EXCLUSIVE"
