"""What autogenerate compares, and what it writes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, Dialect

from qapla_db.errors import Misuse
from qapla_db.record_table import RECORD_TABLE, VERSION_TABLE

__all__ = [
    "OwnTables",
    "compare_defaults_safely",
    "drop_empty",
    "metadata_of",
    "plugins",
    "without_constraints_of_types",
    "write_percents_once",
]

_CHECKS = "alembic.ext.checkconstraint_byname"

IncludeObject = Callable[[Any, str | None, Any, bool, Any], bool]
IncludeName = Callable[[str | None, Any, MutableMapping[Any, str | None]], bool]

_SHOWN = 8
_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_QUOTED_OR_CAST = re.compile(
    rf"(?P<quoted>{_QUOTED.pattern})"
    r"|::\s*(?:\"[^\"]+\"|\w+)(?:\.(?:\"[^\"]+\"|\w+))?(?: varying| precision)?"
    r"(?:\(\d+(?:,\s*\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
)


def metadata_of(model: object) -> list[sa.MetaData]:
    """Return the metadata of a declarative base, of a MetaData, or of a list of them.

    :raises Misuse: it is none of these.
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    found = [
        one if isinstance(one, sa.MetaData) else getattr(one, "metadata", None) for one in models
    ]
    if not found or not all(isinstance(one, sa.MetaData) for one in found):
        raise Misuse(
            f"AlembicEnv takes the declarative base of the database's models (or a MetaData, or a "
            f"list of them), not {model!r}; write AlembicEnv(app, Model, 'main')"
        )
    return [one for one in found if isinstance(one, sa.MetaData)]


class OwnTables:
    """Lets autogenerate see the tables of our own models and nobody else's.

    What stands in the database besides belongs to another database's models,
    to another application or to an extension. It is never dropped;
    :attr:`left_alone` has the names.
    """

    def __init__(self, metadata: Sequence[sa.MetaData]) -> None:
        self.metadata = metadata
        self.names = {key for one in metadata for key in one.tables}
        self.schemas = {table.schema for one in metadata for table in one.tables.values()}
        self.left_alone: set[str] = set()

    def filter(self, theirs: IncludeName | None) -> IncludeName:
        """Return Alembic's hook ``include_name``, which asks the user's own hook too."""

        def include(name: str | None, type_: Any, parents: MutableMapping[Any, str | None]) -> bool:
            if not self._is_ours(name, type_, parents):
                return False
            return theirs is None or theirs(name, type_, parents)

        return include

    def _is_ours(
        self, name: str | None, type_: str, parents: MutableMapping[Any, str | None]
    ) -> bool:
        if type_ == "schema":
            return name in (self.schemas or {None})
        if type_ != "table" or name is None:
            return True
        qualified = parents.get("schema_qualified_table_name") or name
        if qualified in self.names:
            return True
        if not name.startswith(VERSION_TABLE) and name != RECORD_TABLE:
            self.left_alone.add(qualified)
        return False

    def report(self) -> str | None:
        """Return a line about what was left alone, or None."""
        names = sorted(self.left_alone)
        if not names:
            return None
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return (
            f"left alone, because no model of this database has them: "
            f"{', '.join(names[:_SHOWN])}{more} (to remove one, write op.drop_table() yourself)"
        )


def without_constraints_of_types(theirs: IncludeObject | None) -> IncludeObject:
    """Return Alembic's hook ``include_object``, which asks the user's own hook too.

    The constraint of a Boolean or Enum belongs to the column's type, which is
    written with it and leaves it away where the server has such a type.
    """

    def include(found: Any, name: str | None, type_: Any, reflected: bool, compare_to: Any) -> bool:
        if type_ == "check_constraint" and getattr(found, "_type_bound", False):
            return False
        return theirs is None or theirs(found, name, type_, reflected, compare_to)

    return include


def plugins(metadata: Sequence[sa.MetaData], dialect: str) -> dict[str, list[str]]:
    """Return the keyword of ``context.configure`` that has check constraints compared, by name.

    Without a naming convention for them the server names what the models do not,
    and each would look like one to drop. MySQL's JSON columns have constraints
    that nobody wrote.
    """
    named = all("ck" in one.naming_convention for one in metadata)
    if not named or dialect not in ("postgresql", "sqlite"):
        return {}
    if not _has_checks():
        return {}
    return {"autogenerate_plugins": ["alembic.autogenerate.*", _CHECKS]}


def _has_checks() -> bool:
    try:
        return importlib.util.find_spec(_CHECKS) is not None
    except ModuleNotFoundError:  # of its package, which older versions of Alembic do not have
        return False


def drop_empty(directives: list[MigrationScript]) -> bool:
    """Take away a revision in which nothing would happen; tell whether it was one."""
    if not directives or directives[0].upgrade_ops is None:
        return False
    if not directives[0].upgrade_ops.is_empty():
        return False
    directives.clear()
    return True


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
