"""What a schema has besides tables and their columns, as the server's catalogs tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["NEXT_VALUE", "SchemaObject", "objects_of"]

NEXT_VALUE = "next value of"
"""A kind of its own: the number that a sequence gives next."""


@dataclass(frozen=True)
class SchemaObject:
    """A view, a trigger, a function or the like.

    :ivar owner: the table that it belongs to and is dropped with, by its key.
    :ivar kind: what it is.
    :ivar name: its name.
    :ivar definition: what it is made of, as the server writes it.
    """

    owner: str | None
    kind: str
    name: str
    definition: Any


def objects_of(connection: Connection) -> Iterator[SchemaObject]:
    """Return the objects of a database that are the user's: not the server's, nor an extension's.

    PostgreSQL: views, materialized views with their indexes, triggers, rules, policies,
    sequences, functions, domains, composite types, CHECK and exclusion constraints,
    indexes, extensions; with their comments. MariaDB, MySQL: views, triggers, routines, events,
    sequences, CHECKs. SQLite: views, triggers, the numbers of AUTOINCREMENT.
    """
    dialect = connection.dialect
    if dialect.name == "postgresql":
        queries = _POSTGRESQL
    elif dialect.name == "sqlite":
        queries = _SQLITE
        if sa.inspect(connection).has_table("sqlite_sequence"):
            queries += _SQLITE_NUMBERS
    else:
        queries = _MARIADB if getattr(dialect, "is_mariadb", False) else _MYSQL
    for query in queries:
        for owner, kind, name, definition in connection.execute(sa.text(query.format_map(_WORDS))):
            text = " ".join(definition.split()) if isinstance(definition, str) else definition
            yield SchemaObject(owner, kind, str(name), text)
    if getattr(dialect, "is_mariadb", False):
        yield from _mariadb_sequences(connection)


def _mariadb_sequences(connection: Connection) -> Iterator[SchemaObject]:
    for name in sa.inspect(connection).get_sequence_names():
        quoted = connection.dialect.identifier_preparer.quote(name)
        query = f"SELECT * FROM {quoted}"  # noqa: S608
        values = dict(connection.exec_driver_sql(query).mappings().one())
        yield SchemaObject(None, NEXT_VALUE, name, values.pop("next_not_cached_value"))
        definition = ", ".join(f"{key} {value}" for key, value in values.items())
        yield SchemaObject(None, "sequence", name, definition)


# --- PostgreSQL


def _named(schema: str, name: str) -> str:
    return f"CASE {schema} WHEN current_schema() THEN '' ELSE {schema} || '.' END || {name}"


def _comment(number: str, catalog: str) -> str:
    return f"coalesce(' COMMENT ' || obj_description({number}, '{catalog}'), '')"


def _own(catalog: str, number: str) -> str:
    """Return the condition that an object is neither the server's nor an extension's."""
    return (
        "n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' "  # noqa: S608
        f"AND {number} <> ALL (ARRAY(SELECT e.objid FROM pg_depend e "
        f"WHERE e.classid = '{catalog}'::regclass AND e.deptype = 'e'))"
    )


_RELATIONS = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_WORDS = {
    "name": _named("n.nspname", "c.relname"),
    "type_name": _named("n.nspname", "t.typname"),
    "owner": _named("k.nspname", "b.relname"),
    "own": _own("pg_class", "c.oid"),
    "own_type": _own("pg_type", "t.oid"),
    "own_function": _own("pg_proc", "p.oid"),
    "relations": _RELATIONS,
    "sequences": (
        f"pg_sequence s JOIN {_RELATIONS} ON c.oid = s.seqrelid LEFT JOIN (pg_depend d "
        "JOIN pg_class b ON b.oid = d.refobjid JOIN pg_namespace k ON k.oid = b.relnamespace) "
        "ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') "
        "AND d.refclassid = 'pg_class'::regclass"
    ),
    "next_value": NEXT_VALUE,
    "comment": _comment("c.oid", "pg_class"),
    "index_comment": _comment("x.oid", "pg_class"),
    "trigger_comment": _comment("t.oid", "pg_trigger"),
    "constraint_comment": _comment("o.oid", "pg_constraint"),
    "function_comment": _comment("p.oid", "pg_proc"),
    "type_comment": _comment("t.oid", "pg_type"),
}
"""What the queries below have in common."""

_POSTGRESQL: tuple[str, ...] = (
    """SELECT NULL, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, {name},
    pg_get_viewdef(c.oid) || coalesce(' WITH ' || c.reloptions::text, '')
    || CASE WHEN c.relispopulated THEN '' ELSE ' WITH NO DATA' END || {comment}
    FROM {relations} WHERE c.relkind IN ('v', 'm') AND {own}""",
    """SELECT {name}, 'trigger', t.tgname,
    pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'D' THEN ' DISABLED' ELSE '' END
    || {trigger_comment} FROM pg_trigger t JOIN {relations} ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND {own}""",
    """SELECT {name}, 'rule', r.rulename, pg_get_ruledef(r.oid)
    FROM pg_rewrite r JOIN {relations} ON c.oid = r.ev_class
    WHERE r.rulename <> '_RETURN' AND {own}""",
    """SELECT {name}, 'policy', p.polname, concat_ws(' ', p.polcmd::text, p.polpermissive,
    p.polroles::text, pg_get_expr(p.polqual, c.oid), 'CHECK',
    pg_get_expr(p.polwithcheck, c.oid))
    FROM pg_policy p JOIN {relations} ON c.oid = p.polrelid WHERE {own}""",
    """SELECT {name}, 'row level', 'security', c.relforcerowsecurity::text
    FROM {relations} WHERE c.relrowsecurity AND {own}""",
    """SELECT {name}, CASE o.contype WHEN 'c' THEN 'check' ELSE 'exclusion' END, o.conname,
    pg_get_constraintdef(o.oid) || {constraint_comment}
    FROM pg_constraint o JOIN {relations} ON c.oid = o.conrelid
    WHERE o.contype IN ('c', 'x') AND {own}""",
    """SELECT {name}, 'index', x.relname,
    pg_get_indexdef(x.oid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
    || {index_comment}
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN {relations} ON c.oid = i.indrelid
    WHERE NOT EXISTS (SELECT 1 FROM pg_constraint o WHERE o.conindid = x.oid
    AND o.contype IN ('p', 'u', 'x')) AND {own}""",
    """SELECT {owner}, 'sequence', {name}, concat_ws(' ', format_type(s.seqtypid, NULL), 'FROM',
    s.seqstart, 'BY', s.seqincrement, 'IN', s.seqmin, s.seqmax, s.seqcycle::text) || {comment}
    FROM {sequences} WHERE {own}""",
    """SELECT {owner}, '{next_value}', {name},
    coalesce(pg_sequence_last_value(c.oid) + s.seqincrement, s.seqstart)
    FROM {sequences} WHERE s.seqincrement > 0 AND {own}""",
    """SELECT NULL, CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate'
    ELSE 'function' END, p.oid::regprocedure::text,
    CASE p.prokind WHEN 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END
    || {function_comment}
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE {own_function}""",
    """SELECT NULL, 'domain', {type_name}, concat_ws(' ',
    format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || t.typdefault,
    (SELECT string_agg(pg_get_constraintdef(o.oid), ' ' ORDER BY o.conname)
    FROM pg_constraint o WHERE o.contypid = t.oid AND o.contype = 'c')) || {type_comment}
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype = 'd' AND {own_type}""",
    """SELECT NULL, 'type', {name}, string_agg(
    a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
    FROM {relations} JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
    WHERE c.relkind = 'c' AND {own} GROUP BY c.oid, n.nspname, c.relname""",
    "SELECT NULL, 'extension', extname, extversion FROM pg_extension",
)

# --- the others

_SQLITE: tuple[str, ...] = (
    """SELECT CASE type WHEN 'trigger' THEN tbl_name END, type, name, sql
    FROM sqlite_master WHERE type IN ('view', 'trigger')""",
)
_SQLITE_NUMBERS = ("SELECT name, '{next_value}', 'AUTOINCREMENT', seq FROM sqlite_sequence",)

_MYSQL: tuple[str, ...] = (
    """SELECT NULL, 'view', table_name, view_definition FROM information_schema.views
    WHERE table_schema = DATABASE()""",
    """SELECT event_object_table, 'trigger', trigger_name,
    concat_ws(' ', action_timing, event_manipulation, action_statement)
    FROM information_schema.triggers WHERE trigger_schema = DATABASE()""",
    """SELECT NULL, lower(routine_type), routine_name, concat_ws(' ',
    (SELECT group_concat(concat_ws(' ', p.parameter_mode, p.parameter_name, p.dtd_identifier)
    ORDER BY p.ordinal_position SEPARATOR ', ') FROM information_schema.parameters p
    WHERE p.specific_schema = r.routine_schema AND p.specific_name = r.specific_name),
    r.sql_data_access, r.is_deterministic, r.security_type, r.routine_definition)
    FROM information_schema.routines r WHERE routine_schema = DATABASE()""",
    """SELECT NULL, 'event', event_name, concat_ws(' ', execute_at, interval_value,
    interval_field, status, event_definition)
    FROM information_schema.events WHERE event_schema = DATABASE()""",
)
_MARIADB = (
    *_MYSQL,
    """SELECT table_name, 'check', constraint_name, check_clause
    FROM information_schema.check_constraints WHERE constraint_schema = DATABASE()""",
)
