"""Two schemas compared: what a downgrade has not put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["Schema", "schema_differences", "schema_of"]

Schema = dict[str, dict[str, Any]]
"""Of each table its parts by name, such as ``column iata`` and what it is."""


def schema_of(connection: Connection, metadata: sa.MetaData, skip: Collection[str]) -> Schema:
    """Return what can be compared of a reflected schema."""
    found: Schema = {
        f"table {key}": _parts(table, connection)
        for key, table in metadata.tables.items()
        if key not in skip
    }
    if connection.dialect.name == "postgresql":
        inspector: Any = sa.inspect(connection)
        for one in inspector.get_enums("*"):
            found[f"type {one['name']}"] = {"values": tuple(one["labels"])}
    return found


def _parts(table: sa.Table, connection: Connection) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for column in table.columns:
        parts[f"column {column.name}"] = _column(column, connection)
    primary = tuple(column.name for column in table.primary_key.columns)
    parts["primary key"] = f"({', '.join(primary)})"
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint):
            names = sorted(column.name for column in constraint.columns)
            parts[f"unique ({', '.join(names)})"] = "there"
        if isinstance(constraint, sa.ForeignKeyConstraint):
            target = ", ".join(element.target_fullname for element in constraint.elements)
            names = [column.name for column in constraint.columns]
            rules = (constraint.ondelete or "NO ACTION", constraint.onupdate or "NO ACTION")
            parts[f"foreign key ({', '.join(names)}) to ({target})"] = rules
        if isinstance(constraint, sa.CheckConstraint) and constraint.name:
            parts[f"check {constraint.name}"] = "there"
    for index in table.indexes:
        names = [str(getattr(one, "name", one)) for one in index.expressions]
        unique = "unique " if index.unique else ""
        parts[f"index {index.name}"] = f"{unique}({', '.join(names)})"
    return parts


def _column(column: sa.Column[Any], connection: Connection) -> str:
    try:
        kind = column.type.compile(dialect=connection.dialect)
    except sa.exc.CompileError:
        kind = repr(column.type)
    default = column.server_default
    words = [kind, "" if column.nullable else "NOT NULL"]
    if isinstance(default, sa.DefaultClause):
        words.append(f"DEFAULT {default.arg}")
    if column.computed is not None:
        words.append(f"AS {column.computed.sqltext}")
    return " ".join(word for word in words if word)


def schema_differences(before: Schema, after: Schema) -> list[tuple[str | None, str]]:
    """Return (table, what is different) for a schema that should be as it was."""
    found: list[tuple[str | None, str]] = []
    for name in sorted(before.keys() | after.keys()):
        table = name.removeprefix("table ") if name.startswith("table ") else None
        if name not in after:
            found.append((table, f"{name} is missing"))
        elif name not in before:
            found.append((table, f"{name} is left over"))
        else:
            found += [(table, f"{name}: {one}") for one in _changes(before[name], after[name])]
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    for part in sorted(before.keys() | after.keys()):
        if part not in after:
            found.append(f"{part} is missing")
        elif part not in before:
            found.append(f"{part} is left over")
        elif before[part] != after[part]:
            found.append(f"{part} was {before[part]!s}, and is {after[part]!s}")
    return found
