"""What autogenerate compares: the tables of our own models, and nobody else's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import MigrationScript

from qapla_db.errors import Misuse
from qapla_db.record_table import RECORD_TABLE, VERSION_TABLE

__all__ = [
    "OwnTables",
    "drop_empty",
    "metadata_of",
    "plugins",
    "without_constraints_of_types",
]

_CHECKS = "alembic.ext.checkconstraint_byname"

IncludeObject = Callable[[Any, str | None, Any, bool, Any], bool]
IncludeName = Callable[[str | None, Any, MutableMapping[Any, str | None]], bool]

_SHOWN = 8


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
