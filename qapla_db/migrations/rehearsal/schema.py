"""Two schemas compared: what a downgrade has not put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.migrations.rehearsal.objects import NEXT_VALUE, SchemaObject, objects_of

__all__ = ["Schema", "schema_differences", "schema_of"]

Schema = dict[str, dict[str, Any]]
"""Of each table its parts by name, such as ``column iata`` and what it is; of all else, too."""

_WIDTH = 80


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
    for one in objects_of(connection):
        if one.owner not in skip:
            _add(found, one)
    return found


def _add(found: Schema, one: SchemaObject) -> None:
    """Add an object: to what it belongs to, or else by itself."""
    name = f"{one.kind} {one.name}"
    owners = (f"{kind} {one.owner}" for kind in ("table", "view", "materialized view"))
    owner = next((owner for owner in owners if owner in found), None)
    if owner is None and one.kind == NEXT_VALUE:
        owner = f"sequence {one.name}"
    if owner is not None:
        found.setdefault(owner, {})[name] = one.definition
    else:
        found.setdefault(name, {})["definition"] = one.definition


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
        if isinstance(constraint, sa.CheckConstraint):
            text = " ".join(str(constraint.sqltext).split())
            parts[f"check {constraint.name or text}"] = text
    for index in table.indexes:
        names = [str(getattr(one, "name", one)) for one in index.expressions]
        unique = "unique " if index.unique else ""
        options = "".join(f" {key} {value}" for key, value in index.dialect_kwargs.items() if value)
        parts[f"index {index.name}"] = f"{unique}({', '.join(names)}){options}"
    if table.comment:
        parts["comment"] = table.comment
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
    if column.identity is not None:
        words.append(f"IDENTITY {'ALWAYS' if column.identity.always else 'BY DEFAULT'}")
    if column.comment:
        words.append(f"COMMENT {column.comment!r}")
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
        elif part.startswith(NEXT_VALUE) and after[part] >= before[part]:
            continue  # numbers may be left out, but not given again
        elif before[part] != after[part]:
            was, now = _cut(str(before[part]), str(after[part]))
            found.append(f"{part} was {was}, and is {now}")
    return found


def _cut(first: str, second: str) -> tuple[str, str]:
    """Return two texts from shortly before where they differ, if they are long."""
    if max(len(first), len(second)) <= _WIDTH:
        return first, second
    same = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    begin = max(0, same - _WIDTH // 4)
    dots = "..." if begin else ""
    was, now = (
        f"{dots}{text[begin : begin + _WIDTH]}{'...' if len(text) > begin + _WIDTH else ''}"
        for text in (first, second)
    )
    return was, now
