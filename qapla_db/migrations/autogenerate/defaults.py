"""Server defaults and other expressions: how they are compared and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, Dialect

__all__ = ["compare_defaults_safely", "write_percents_once"]

_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_QUOTED_OR_CAST = re.compile(
    rf"(?P<quoted>{_QUOTED.pattern})"
    r"|::\s*(?:\"[^\"]+\"|\w+)(?:\.(?:\"[^\"]+\"|\w+))?(?: varying| precision)?"
    r"(?:\(\d+(?:,\s*\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
)


def compare_defaults_safely(context: MigrationContext) -> None:
    """Replace how Alembic compares server defaults on PostgreSQL and SQLite.

    Its own way asks the server whether two values are equal, which fails for
    types without equality such as JSON and runs functions such as nextval().
    A hook ``compare_server_default`` fails on generated columns (Alembic 1.18
    and newer). So the method of this one context is replaced: defaults are
    compared as texts, and on PostgreSQL the server says how it would store ours.
    """
    compare: Callable[[Connection, sa.Column[Any], str, str], bool]
    compare = _equal_postgresql if context.dialect.name == "postgresql" else _equal_text

    def differs(
        inspected: sa.Column[Any], ours: sa.Column[Any], _: object, stored: str | None
    ) -> bool:
        if ours.primary_key and ours is ours.table.autoincrement_column:
            return False  # SERIAL
        wanted = _rendered(ours, context.dialect)
        if stored is None or wanted is None:
            return stored is not wanted
        assert context.connection is not None
        return not compare(context.connection, ours, stored, wanted)

    vars(context.impl)["compare_server_default"] = differs


def write_percents_once(context: MigrationContext) -> None:
    """Have expressions written into revisions as the models have them.

    Alembic writes what is meant for the driver, in which some dialects double the percent
    signs; when the revision runs they are doubled again, and the server stores both. So the
    method of this one context is replaced.
    """
    render = type(context.impl).render_ddl_sql_expr

    def once(expression: sa.ClauseElement, *arguments: Any, **options: Any) -> str:
        text = render(context.impl, expression, *arguments, **options)
        return text.replace("%%", "%") if _doubles_percents(context.dialect) else text

    vars(context.impl)["render_ddl_sql_expr"] = once


def _rendered(column: sa.Column[Any], dialect: Dialect) -> str | None:
    default = column.server_default
    if not isinstance(default, sa.DefaultClause):
        return None
    if isinstance(default.arg, str):
        return "'" + default.arg.replace("'", "''") + "'"
    text = str(default.arg.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return text.replace("%%", "%") if _doubles_percents(dialect) else text


def _doubles_percents(dialect: Dialect) -> bool:
    return dialect.paramstyle in ("format", "pyformat")


def _equal_text(_: Connection, column: sa.Column[Any], stored: str, wanted: str) -> bool:
    return _simplified(stored) == _simplified(wanted)


def _equal_postgresql(
    connection: Connection, column: sa.Column[Any], stored: str, wanted: str
) -> bool:
    if _simplified(stored) == _simplified(wanted):
        return True
    as_stored = _as_stored(connection, column, wanted)
    return as_stored is not None and _simplified(stored) == _simplified(as_stored)


def _as_stored(connection: Connection, column: sa.Column[Any], wanted: str) -> str | None:
    """Return a default as the server writes it down, or None when it cannot say."""
    kind = column.type.compile(dialect=connection.dialect)
    create = f"CREATE TEMPORARY TABLE qapla_db_default (value {kind} DEFAULT {wanted})"
    if _doubles_percents(connection.dialect):
        create = create.replace("%", "%%")
    query = (
        "SELECT pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef "
        "WHERE adrelid = 'pg_temp.qapla_db_default'::pg_catalog.regclass"
    )
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(create)
        found: str | None = connection.exec_driver_sql(query).scalar()
    except sa.exc.DBAPIError:
        return None
    finally:
        savepoint.rollback()
    return found


def _simplified(default: str) -> str:
    """Reduce a default to what two spellings of one value share."""
    text = _QUOTED_OR_CAST.sub(lambda match: match["quoted"] or "", default.strip())
    while text.startswith("(") and _closes_at_the_end(text):
        text = text[1:-1].strip()
    quoted = _QUOTED.fullmatch(text)
    return quoted[1].replace("''", "'") if quoted else text


def _closes_at_the_end(text: str) -> bool:
    depth = 0
    bare = _QUOTED.sub(lambda match: "x" * len(match[0]), text)
    for position, character in enumerate(bare):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position == len(text) - 1
    return False
