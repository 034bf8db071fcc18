"""The rules: what is unsafe on a database that is in use, and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALLOW", "NOT_SEEN", "RULES", "SAY", "Risk", "Rule", "family", "rule_for"]


@dataclass(frozen=True)
class Rule:
    """What is said of one kind of risk.

    :param message: ``{what}`` is the table, column, index or constraint.
    :param remedy: what to do instead.
    """

    message: str
    remedy: str


@dataclass(frozen=True)
class Risk:
    """A rule that an operation or statement is against.

    :param rule: the rule's name.
    :param table: its table; None where the statement does not name it.
    :param what: what it is about, for people.
    """

    rule: str
    table: str | None
    what: str


SAY = "or say why it is right here: # qapla: allow {rule}, REASON"

_STOPPED = f"release in steps (add the new one, write both, copy, drop the old one), {SAY}"

_LOSES = {
    "drop-column": Rule(
        "the column {what} is dropped with its values; a program that still runs and selects "
        "it fails",
        f"let a release that does not use it run first, {SAY}",
    ),
    "drop-table": Rule(
        "the table {what} is dropped with its rows; a program that still runs and uses it fails",
        f"let a release that does not use it run first, {SAY}",
    ),
    "delete-rows": Rule(
        "all rows of {what} are deleted", f"name the rows that are meant in a WHERE, {SAY}"
    ),
    "drop-schema": Rule(
        "the {what} is dropped with all its tables", f"drop them one by one, {SAY}"
    ),
}

_RENAMES = {
    "rename-column": Rule(
        "the column {what} is renamed under programs that still use the old name", _STOPPED
    ),
    "rename-table": Rule(
        "the table {what} is renamed under programs that still use the old name", _STOPPED
    ),
}

_UPDATES = Rule(
    "all rows of {what} are changed by one statement: each is locked until the revision is done, "
    "and written anew",
    f"change them in batches, in a program of its own, {SAY}",
)

_QUIET = f"do it when nobody needs the table, with a lock_timeout, {SAY}"

_LOCKS = Rule("the table {what} is locked for others to the end of the transaction", _QUIET)

_TWO_STEPS = (
    "add it NOT VALID (postgresql_not_valid=True), and VALIDATE CONSTRAINT in a revision of its own"
)

_POSTGRESQL = {
    **_LOSES,
    **_RENAMES,
    "add-not-null": Rule(
        "the column {what} is added NOT NULL without a default: that fails on a table with rows",
        "give it a server_default; or add it nullable, fill it and set NOT NULL later",
    ),
    "set-not-null": Rule(
        "SET NOT NULL of {what} reads the whole table while nobody can read or write it",
        "add CHECK (... IS NOT NULL) NOT VALID, VALIDATE it in a revision of its own, then SET "
        f"NOT NULL (which trusts it) and drop it, {SAY}",
    ),
    "change-type": Rule(
        "the new type of {what} makes the server write the whole table anew while nobody can "
        "read or write it",
        f"add a column of the new type, fill it in batches and change over, {SAY}",
    ),
    "rewrite": Rule(
        "adding {what} makes the server write the whole table anew while nobody can read or "
        "write it",
        f"add it nullable and without a default, fill it in batches, set the default, {SAY}",
    ),
    "create-index": Rule(
        "the index {what} is made while nobody can write to its table",
        "use create_index_concurrently() of qapla_db.migrations.indexes in a revision of its own",
    ),
    "drop-index": Rule(
        "dropping the index {what} waits for every query on its table, and all others for it",
        "use drop_index_concurrently() of qapla_db.migrations.indexes in a revision of its own",
    ),
    "index-in-transaction": Rule(
        "{what} is asked for CONCURRENTLY inside of a transaction, which fails",
        "use create_index_concurrently() or drop_index_concurrently() of "
        "qapla_db.migrations.indexes, which leave the transaction",
    ),
    "foreign-key": Rule(
        "the foreign key {what} is checked for every row while nobody can write to both tables",
        _TWO_STEPS,
    ),
    "check": Rule(
        "the check {what} is tried on every row while nobody can read or write the table",
        _TWO_STEPS,
    ),
    "unique-constraint": Rule(
        "the index of the unique constraint {what} is made while nobody can read or write the "
        "table",
        "make a unique index with create_index_concurrently(), then ALTER TABLE ... ADD "
        "CONSTRAINT ... UNIQUE USING INDEX in a revision of its own",
    ),
    "primary-key": Rule(
        "the index of the primary key {what} is made while nobody can read or write the table",
        "make a unique index with create_index_concurrently(), then ALTER TABLE ... ADD "
        "CONSTRAINT ... PRIMARY KEY USING INDEX in a revision of its own",
    ),
}

_POSTGRESQL_AS_A_WHOLE = {
    "update-rows": _UPDATES,
    "lock-table": _LOCKS,
    "drop-object": Rule(
        "the {what} is dropped with all that depends on it: columns with their values, views, "
        "constraints",
        f"drop what depends on it by name before, and leave CASCADE away, {SAY}",
    ),
    "alter-type": Rule(
        "the type {what} is changed under programs that still use it as it was", _STOPPED
    ),
    "rewrite-table": Rule(
        "{what} writes the whole table anew while nobody can read or write it", _QUIET
    ),
    "reindex": Rule(
        "REINDEX of {what} stops writers, and readers that would use the index",
        f"REINDEX ... CONCURRENTLY in op.get_context().autocommit_block(), {SAY}",
    ),
    "refresh-view": Rule(
        "the materialized view {what} is filled while nobody can read it",
        f"REFRESH MATERIALIZED VIEW CONCURRENTLY (it needs a unique index), {SAY}",
    ),
    "detach-partition": Rule(
        "DETACH PARTITION {what} waits for every query on the table, and all others for it",
        f"DETACH PARTITION ... CONCURRENTLY in op.get_context().autocommit_block(), {SAY}",
    ),
    "disable-trigger": Rule(
        "triggers of {what} are off, foreign keys among them: what is written meanwhile is not "
        "checked, and nobody checks it later",
        f"leave them on, {SAY}",
    ),
    "in-transaction": Rule(
        "{what} fails inside of a transaction",
        "put it into: with op.get_context().autocommit_block()",
    ),
}

_COPIES = f"use pt-online-schema-change or gh-ost for a large table, {SAY}"

_MYSQL = {
    **_LOSES,
    **_RENAMES,
    "change-type": Rule(
        "the new type of {what} copies the whole table while nobody can write to it", _COPIES
    ),
    "rewrite": Rule("adding {what} copies the table while nobody can write to it", _COPIES),
    "foreign-key": Rule(
        "the foreign key {what} copies the whole table while nobody can write to it", _COPIES
    ),
    "check": Rule("the check {what} copies the whole table while nobody can write to it", _COPIES),
    "create-index": Rule(
        "the index {what} (FULLTEXT or SPATIAL) is made while nobody can write to its table",
        _COPIES,
    ),
    "update-rows": _UPDATES,
    "lock-table": _LOCKS,
    "rewrite-table": Rule("{what} copies the table while nobody can write to it", _COPIES),
    "drop-primary-key": Rule(
        "dropping the primary key {what} copies the table while nobody can write to it", _COPIES
    ),
}

_OTHERS = {
    **_LOSES,
    "change-type": Rule(
        "the new type of {what} is of another kind: values that are none of it are lost",
        f"add a column of the new type and fill it from the old one, {SAY}",
    ),
}

NOT_SEEN = "not-seen"
ALLOW = "allow"

_ALWAYS = {
    NOT_SEEN: Rule(
        "the revision cannot be looked at to its end without a database: {what}",
        f"put the data migration into a revision of its own, {SAY}",
    ),
    "not-read": Rule(
        "what {what} runs is not looked into, so nothing is known of it",
        f"write its statements into op.execute(), {SAY}",
    ),
    ALLOW: Rule("{what}", "write # qapla: allow RULE, REASON"),
}

RULES = {
    "postgresql": {**_POSTGRESQL, **_POSTGRESQL_AS_A_WHOLE, **_ALWAYS},
    "mysql": {**_MYSQL, **_ALWAYS},
    "others": {**_OTHERS, **_ALWAYS},
}


def family(dialect: str) -> str:
    """Return the kind of database whose rules are those of a dialect's."""
    if dialect == "mariadb":
        return "mysql"
    return dialect if dialect in RULES else "others"


def rule_for(dialect: str, name: str) -> Rule | None:
    """Return a rule of a dialect, or None where it is no risk there."""
    return RULES[family(dialect)].get(name)
