"""What is risky in one change of a table that a revision has as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qapla_db.migrations.lint.rules import Risk
from qapla_db.migrations.sqltext import bare, pattern

__all__ = ["is_volatile", "risks_of_change"]

_RENAME_TABLE = pattern(r"(?:RENAME (?:TO|AS)|SET SCHEMA) NAME")
_RENAME_COLUMN = pattern(
    r"(?:RENAME (?!CONSTRAINT )(?:COLUMN )?NAME TO NAME|CHANGE (?:COLUMN )?NAME NAME)"
)
_DROP_COLUMN = pattern(
    r"DROP (?!CONSTRAINT |PRIMARY |FOREIGN |INDEX |KEY |CHECK )(?:COLUMN )?(?:IF EXISTS )?NAME"
)
_ALTER_COLUMN = pattern(r"ALTER (?!CONSTRAINT |INDEX )(?:COLUMN )?NAME (.+)")
_MODIFY = pattern(r"MODIFY (?:COLUMN )?NAME")
_ADD_CONSTRAINT = pattern(
    r"ADD (?:CONSTRAINT (?:NAME )?)?(FOREIGN KEY|CHECK|UNIQUE|PRIMARY KEY)\b(.*)"
)
_ADD_COLUMN = pattern(
    r"ADD (?!CONSTRAINT |INDEX |KEY |VALUE )(?:COLUMN )?(?:IF NOT EXISTS )?NAME (.+)"
)
_REWRITE = pattern(r"(SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD)|CONVERT TO|ENGINE)\b")
_DETACH = pattern(r"DETACH PARTITION NAME( CONCURRENTLY| FINALIZE)?")
_TRIGGER_OFF = pattern(r"DISABLE TRIGGER\b")
_CONSTRAINTS = {
    "FOREIGN KEY": "foreign-key",
    "CHECK": "check",
    "UNIQUE": "unique-constraint",
    "PRIMARY KEY": "primary-key",
}
_VOLATILE = re.compile(
    r"\b(random|gen_random_uuid|uuid_generate_v\w+|uuidv[47]|clock_timestamp|timeofday|nextval|"
    r"uuid|rand)\s*\(",
    re.IGNORECASE,
)


def is_volatile(default: str) -> bool:
    """Tell whether a default has another value for each row."""
    return _VOLATILE.search(default) is not None


def risks_of_change(table: str, action: str, in_transaction: bool) -> Iterator[Risk]:
    """Yield what is risky in one action of ALTER TABLE.

    :param table: the table's name, without quotes.
    :param in_transaction: whether it is run in the revision's transaction.
    """
    if match := _RENAME_TABLE.match(action):
        yield Risk("rename-table", table, f"{table} to {bare(match[1])}")
    elif match := _RENAME_COLUMN.match(action):
        old, new = (bare(name) for name in match.groups() if name)
        if old != new:
            yield Risk("rename-column", table, f"{table}.{old} to {new}")
        if action[:1] in "cC":
            yield Risk("change-type", table, f"{table}.{old}")
    elif match := re.match(r"DROP\s+PRIMARY\s+KEY", action, re.IGNORECASE):
        yield Risk("drop-primary-key", table, f"of {table}")
    elif match := _DROP_COLUMN.match(action):
        yield Risk("drop-column", table, f"{table}.{bare(match[1])}")
    elif match := _MODIFY.match(action):
        yield Risk("change-type", table, f"{table}.{bare(match[1])}")
    elif match := _ALTER_COLUMN.match(action):
        yield from _altered_column(table, f"{table}.{bare(match[1])}", match[2])
    elif match := _ADD_CONSTRAINT.match(action):
        name, kind, rest = match[1], " ".join(match[2].upper().split()), match[3].upper()
        if "NOT VALID" not in rest and "USING INDEX" not in rest:
            yield Risk(_CONSTRAINTS[kind], table, bare(name) if name else f"of {table}")
    elif match := _ADD_COLUMN.match(action):
        yield from _added_column(table, f"{table}.{bare(match[1])}", match[2])
    else:
        yield from _as_a_whole(table, action, in_transaction)


def _as_a_whole(table: str, action: str, in_transaction: bool) -> Iterator[Risk]:
    if match := _REWRITE.match(action):
        yield Risk("rewrite-table", table, f"{match[1].upper()} of {table}")
    elif _TRIGGER_OFF.match(action):
        yield Risk("disable-trigger", table, table)
    elif match := _DETACH.match(action):
        if not match[2]:
            yield Risk("detach-partition", table, f"{bare(match[1])} of {table}")
        elif in_transaction and "CONCURRENTLY" in match[2].upper():
            yield Risk("in-transaction", None, f"DETACH PARTITION {bare(match[1])} CONCURRENTLY")


def _altered_column(table: str, what: str, change: str) -> Iterator[Risk]:
    if re.match(r"SET\s+NOT\s+NULL", change, re.IGNORECASE):
        yield Risk("set-not-null", table, what)
    elif re.match(r"(SET\s+DATA\s+)?TYPE\b", change, re.IGNORECASE):
        yield Risk("change-type", table, what)


def _added_column(table: str, what: str, definition: str) -> Iterator[Risk]:
    text = " ".join(definition.upper().split())
    generated = "GENERATED" in text and "VIRTUAL" not in text
    if generated or re.search(r"\b(SMALL|BIG)?SERIAL\b", text) or is_volatile(text):
        yield Risk("rewrite", table, what)
    elif "NOT NULL" in text and "DEFAULT" not in text:
        yield Risk("add-not-null", table, what)
    for words, rule in {**_CONSTRAINTS, "REFERENCES": "foreign-key"}.items():
        # REFERENCES of a new column that is NULL in every row has nothing to check
        if re.search(rf"\b{words}\b", text) and (words != "REFERENCES" or "DEFAULT" in text):
            yield Risk(rule, table, f"of {what}")
