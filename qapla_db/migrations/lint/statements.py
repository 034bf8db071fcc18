"""What is risky in SQL that a revision has as text: the plain cases."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qapla_db.migrations.lint.rules import Risk
from qapla_db.migrations.sqltext import actions_of, bare, pattern, split

__all__ = ["is_volatile", "risks_of_sql"]


_DROP_TABLE = pattern(r"DROP TABLE (?:IF EXISTS )?(.+?)(?: CASCADE| RESTRICT)?$")
_ALTER_TABLE = pattern(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?NAME\*? (.+)$")
_CREATE_INDEX = pattern(
    r"CREATE (?:UNIQUE )?(?:(FULLTEXT|SPATIAL) )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?"
    r"(?:NAME )?ON (?:ONLY )?NAME"
)
_DROP_INDEX = pattern(r"DROP INDEX (CONCURRENTLY )?(?:IF EXISTS )?NAME")
_TRUNCATE = pattern(r"TRUNCATE (?:TABLE )?(?:ONLY )?NAME")
_DELETE = pattern(r"DELETE FROM (?:ONLY )?NAME(?: (?:AS )?(?!WHERE|USING)\w+)?$")

_RENAME_TABLE = pattern(r"RENAME (?:TO|AS) NAME")
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


def risks_of_sql(sql: str, kind: str, *, in_transaction: bool) -> Iterator[Risk]:
    """Yield what is risky in the plain statements of a text.

    :param kind: the kind of database, as :func:`family` names it.
    :param in_transaction: whether it is run in the revision's transaction.
    """
    for statement in split(sql):
        if match := _ALTER_TABLE.match(statement):
            table = bare(match[1])
            for action in actions_of(match[2]):
                yield from _altered(table, action)
        else:
            yield from _plain(statement, kind, in_transaction)


def _plain(statement: str, kind: str, in_transaction: bool) -> Iterator[Risk]:
    if match := _DROP_TABLE.match(statement):
        for name in actions_of(match[1]):
            yield Risk("drop-table", bare(name), bare(name))
    elif match := _CREATE_INDEX.match(statement):
        table, what = bare(match[4]), bare(match[3] or match[4])
        if kind == "mysql":  # which takes writes meanwhile, but for these two
            yield from [Risk("create-index", table, what)] if match[1] else []
        elif not match[2]:
            yield Risk("create-index", table, what)
        elif in_transaction:
            yield Risk("index-in-transaction", None, f"the index {what}")
    elif match := _DROP_INDEX.match(statement):
        if not match[1]:
            yield Risk("drop-index", None, bare(match[2]))
        elif in_transaction:
            yield Risk("index-in-transaction", None, f"dropping the index {bare(match[2])}")
    elif match := _TRUNCATE.match(statement) or _DELETE.match(statement):
        yield Risk("delete-rows", bare(match[1]), bare(match[1]))


def _altered(table: str, action: str) -> Iterator[Risk]:
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
