"""What is risky in SQL that a revision has as text: the plain cases."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qapla_db.migrations.lint.rules import Risk
from qapla_db.migrations.lint.table_changes import risks_of_change
from qapla_db.migrations.sqltext import (
    ALTER_TABLE,
    TRUNCATE,
    actions_of,
    bare,
    names_of,
    outside_parentheses,
    pattern,
    split,
)

__all__ = ["risks_of_sql"]


_DROP_TABLE = pattern(r"DROP TABLE (?:IF EXISTS )?(.+?)(?: CASCADE| RESTRICT)?$")
_CREATE_INDEX = pattern(
    r"CREATE (?:UNIQUE )?(?:(FULLTEXT|SPATIAL) )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?"
    r"(?:NAME )?ON (?:ONLY )?NAME"
)
_DROP_INDEX = pattern(r"DROP INDEX (CONCURRENTLY )?(?:IF EXISTS )?NAME")
_DROP_SCHEMA = pattern(r"DROP (SCHEMA|DATABASE) (?:IF EXISTS )?(.+?)( CASCADE| RESTRICT)?$")
_DROP_CASCADE = pattern(r"DROP ([A-Z ]+?) (?:IF EXISTS )?(?:(?<=OWNED BY )(.+)|(.+?) CASCADE$)")
_ALTER_TYPE = pattern(r"ALTER TYPE NAME ((?!ADD|OWNER)\w+(?: ATTRIBUTE| VALUE)?)\b")
_ALTER_DOMAIN = pattern(r"ALTER DOMAIN NAME (?:ADD|SET NOT NULL)\b(?!.*NOT VALID)")
_NOT_READ = pattern(r"(DO|CALL|EXECUTE)\b")
_TRIGGERS_OFF = pattern(
    r"SET (?:LOCAL |SESSION )?session_replication_role\b(?!.* (?:origin|DEFAULT)$)"
)

_DELETE = pattern(r"DELETE FROM (?:ONLY )?NAME(?: (?:AS )?(?!WHERE|USING|LIMIT|ORDER)\w+)?$")
_UPDATE = pattern(r"UPDATE (?:ONLY )?NAME(?: (?:AS )?(?!SET )\w+)? SET (?!.*[ )](?:WHERE|LIMIT)\b)")
_EVERY_ROW = re.compile(r" WHERE (?:TRUE|1 ?= ?1)$", re.IGNORECASE)
_RETURNING = re.compile(r" RETURNING .*$", re.IGNORECASE)
_NESTED = re.compile(r"\( ?((?:DELETE|UPDATE) (?:[^()]|\([^()]*\))*)\)", re.IGNORECASE)
_WITH = re.compile(r"\AWITH .*?(?=\b(?:UPDATE|DELETE FROM) )", re.IGNORECASE)

_LOCK = pattern(r"LOCK (?:TABLES? )?(?:ONLY )?(.+?)(?: IN (.+) MODE)?(?: NOWAIT)?$")
_WEAK = {"ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"}
_VACUUM = pattern(r"VACUUM\b ?(\([^)]*\))?((?: ?\b(?:FULL|FREEZE|VERBOSE|ANALYZE)\b)*) ?(.*)$")
_CLUSTER = pattern(r"CLUSTER\b ?(?:\([^)]*\))?(?: ?VERBOSE)?(?: ?NAME)?")
_REINDEX = pattern(
    r"REINDEX (?:\(([^)]*)\) ?)?(TABLE|INDEX|SCHEMA|DATABASE|SYSTEM) (CONCURRENTLY )?NAME"
)
_REFRESH = pattern(r"REFRESH MATERIALIZED VIEW (CONCURRENTLY )?NAME")


def risks_of_sql(sql: str, kind: str, *, in_transaction: bool) -> Iterator[Risk]:
    """Yield what is risky in the plain statements of a text.

    :param kind: the kind of database, as :func:`family` names it.
    :param in_transaction: whether it is run in the revision's transaction.
    """
    for statement in split(sql):
        if match := ALTER_TABLE.match(statement):
            table = bare(match[1])
            for action in actions_of(match[2]):
                yield from risks_of_change(table, action, in_transaction)
            continue
        yield from _dropped(statement, kind)
        yield from _index(statement, kind, in_transaction)
        yield from _other(statement)
        yield from _all_rows(statement)
        yield from _whole_table(statement, in_transaction)


def _dropped(statement: str, kind: str) -> Iterator[Risk]:
    if match := _DROP_TABLE.match(statement):
        yield from (Risk("drop-table", name, name) for name in names_of(match[1]))
    elif match := _DROP_SCHEMA.match(statement):
        # without CASCADE PostgreSQL drops a schema only when it is empty
        is_whole = match[1].upper() == "DATABASE" or kind == "mysql"
        if is_whole or (match[3] or "").upper() == " CASCADE":
            yield Risk("drop-schema", None, f"{match[1].lower()} {match[2]}")
    elif (match := _DROP_CASCADE.match(statement)) and not _DROP_INDEX.match(statement):
        yield Risk("drop-object", None, f"{match[1].lower()} {match[2] or match[3]}")


def _index(statement: str, kind: str, in_transaction: bool) -> Iterator[Risk]:
    if match := _CREATE_INDEX.match(statement):
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


def _other(statement: str) -> Iterator[Risk]:
    if match := _ALTER_TYPE.match(statement):
        yield Risk("alter-type", None, f"{bare(match[1])} ({match[2].upper()})")
    elif match := _ALTER_DOMAIN.match(statement):
        yield Risk("check", None, f"of the domain {bare(match[1])}")
    elif match := _TRIGGERS_OFF.match(statement):
        yield Risk("disable-trigger", None, "every table")
    elif match := _NOT_READ.match(statement):
        yield Risk("not-read", None, match[1].upper())


def _all_rows(statement: str) -> Iterator[Risk]:
    if match := TRUNCATE.match(statement):
        yield from (Risk("delete-rows", name, name) for name in names_of(match[1]))
        return
    for nested in _NESTED.findall(statement):
        yield from _all_rows(nested)
    flat = _WITH.sub("", outside_parentheses(statement), count=1)
    flat = _EVERY_ROW.sub("", _RETURNING.sub("", flat))
    for rule, known in (("delete-rows", _DELETE), ("update-rows", _UPDATE)):
        if match := known.match(flat):
            yield Risk(rule, bare(match[1]), bare(match[1]))


def _whole_table(statement: str, in_transaction: bool) -> Iterator[Risk]:
    if match := _LOCK.match(statement):
        if (match[2] or "").upper() not in _WEAK:
            yield from (Risk("lock-table", name, name) for name in names_of(match[1]))
    elif match := _VACUUM.match(statement):
        if "FULL" in f"{match[1]} {match[2]}".upper():
            table = bare(match[3]) or None
            yield Risk("rewrite-table", table, f"VACUUM FULL of {table or 'every table'}")
        if in_transaction:
            yield Risk("in-transaction", None, "VACUUM")
    elif match := _CLUSTER.match(statement):
        table = bare(match[1]) if match[1] else None
        yield Risk("rewrite-table", table, f"CLUSTER of {table or 'every table'}")
    elif match := _REINDEX.match(statement):
        what = f"the {match[2].lower()} {bare(match[4])}"
        if not match[3] and "CONCURRENTLY" not in (match[1] or "").upper():
            yield Risk("reindex", bare(match[4]) if match[2].upper() == "TABLE" else None, what)
        elif in_transaction:
            yield Risk("in-transaction", None, f"REINDEX CONCURRENTLY of {what}")
    elif (match := _REFRESH.match(statement)) and not match[1]:
        yield Risk("refresh-view", None, bare(match[2]))
