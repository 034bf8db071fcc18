"""The entity-relationship diagram of models, as Mermaid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

__all__ = ["mermaid"]

_WORD = re.compile(r"[^A-Za-z0-9_]+")
_TYPE = re.compile(r"[^A-Za-z0-9_()\[\]-]+")


def mermaid(metadata: Iterable[sa.MetaData]) -> str:
    """Return the diagram of all tables.

    A line leads from the table that is referred to to the one that refers: a full one
    where the key is a part of the primary key there, a dotted one elsewhere. Its ends
    say how many: ``||`` one, ``|o`` none or one, ``o{`` any number.

    :param metadata: of the models, see :func:`qapla_db.migrations.models.models_of`.
    """
    tables = [table for one in metadata for table in one.sorted_tables]
    tables.sort(key=lambda table: table.fullname)
    names = _identifiers([table.fullname for table in tables])
    lines = ["erDiagram"]
    for table in tables:
        lines += _entity(table, names[table.fullname])
    for table in tables:
        lines += _relations(table, names)
    return "\n".join(lines) + "\n"


def _identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return a Mermaid identifier for each name, no two the same."""
    found: dict[str, str] = {}
    for name in names:
        plain = wanted = _WORD.sub("_", name).strip("_") or "table"
        number = 2
        while plain in found.values():
            plain, number = f"{wanted}_{number}", number + 1
        found[name] = plain if plain[0].isalpha() else f"t_{plain}"
    return found


def _entity(table: sa.Table, identifier: str) -> Iterator[str]:
    shown = "" if identifier == table.fullname else f"[{_quoted(table.fullname)}]"
    yield f"    {identifier}{shown} {{"
    single = {columns[0] for columns in _unique_sets(table) if len(columns) == 1}
    for column in table.columns:
        keys = [
            key
            for key, holds in (
                ("PK", column.primary_key),
                ("FK", bool(column.foreign_keys)),
                ("UK", column.name in single and not column.primary_key),
            )
            if holds
        ]
        name = _WORD.sub("_", column.name).strip("_") or "column"
        name = name if name[0].isalpha() else f"c_{name}"
        remarks = [column.name] if name != column.name else []
        remarks += ["may be NULL"] if column.nullable else []
        words = [_type(column), name]
        words += [", ".join(keys)] if keys else []
        words += [_quoted("; ".join(remarks))] if remarks else []
        yield f"        {' '.join(words)}"
    yield "    }"


def _type(column: sa.Column[object]) -> str:
    name = getattr(column.type, "name", None) if isinstance(column.type, sa.Enum) else None
    text = _TYPE.sub("_", name or str(column.type)).strip("_")
    return text if text[:1].isalpha() else f"type_{text}"


def _relations(table: sa.Table, names: dict[str, str]) -> Iterator[str]:
    primary = {column.name for column in table.primary_key.columns}
    unique = [set(columns) for columns in _unique_sets(table)]
    keys = sorted(table.foreign_key_constraints, key=lambda key: tuple(key.column_keys))
    for key in keys:
        target = key.elements[0].target_fullname.rpartition(".")[0]
        if target not in names:
            continue  # a table that no model of this database has
        columns = [column.name for column in key.columns]
        parent = "|o" if any(column.nullable for column in key.columns) else "||"
        child = "o|" if any(one <= set(columns) for one in unique) else "o{"
        line = "--" if set(columns) <= primary else ".."
        label = _quoted(", ".join(columns))
        yield f"    {names[target]} {parent}{line}{child} {names[table.fullname]} : {label}"


def _unique_sets(table: sa.Table) -> list[list[str]]:
    """Return the sets of columns of which no two rows have the same values."""
    found = [[column.name for column in table.primary_key.columns]]
    found += [
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
    ]
    for index in table.indexes:
        is_partial = any(name.endswith("_where") for name in index.dialect_kwargs)
        if index.unique and not is_partial and len(index.columns) == len(index.expressions):
            found.append([column.name for column in index.columns])
    return [columns for columns in found if columns]


def _quoted(text: str) -> str:
    """Return a text between quotes; what Mermaid does not take there as its entity."""
    plain = " ".join(text.split()).replace("#", "#35;")
    for character, entity in (('"', "#quot;"), ("%", "#37;"), ("\\", "#92;")):
        plain = plain.replace(character, entity)
    return f'"{plain}"'
