"""The names that tables and columns get on the way: renames seen in what is executed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

__all__ = ["TEMPORARY", "Names"]

TEMPORARY = "_alembic_tmp_"
"""What Alembic's batch mode names the table that it makes anew begins with."""

_PART = r'(?:"(?:[^"]|"")+"|`[^`]+`|[\w$]+)'
_NAME = rf"((?:{_PART}\.)?{_PART})"
_ALTER = re.compile(rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME}\s+([^;]+)", re.I)
# clauses of it
_COLUMN = re.compile(
    rf"(?:^|,\s*)(?:RENAME\s+(?:COLUMN\s+)?(?!TO\b)({_PART})\s+TO|"
    rf"CHANGE\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?({_PART}))\s+({_PART})",
    re.I,
)
_TABLE = re.compile(rf"(?:^|,\s*)RENAME\s+(?:TO|AS)\s+{_NAME}", re.I)
_SCHEMA = re.compile(rf"^SET\s+SCHEMA\s+({_PART})", re.I)
_RENAME = re.compile(r"RENAME\s+TABLES?\s+(?:IF\s+EXISTS\s+)?([^;]+)", re.I)
_PAIR = re.compile(rf"(?:^|,\s*){_NAME}\s+TO\s+{_NAME}", re.I)


class Names:
    """The names of tables and columns now, by those at the start.

    :param metadata: the schema at the start.
    :param dialect: of the connection that statements are executed on.
    """

    def __init__(self, metadata: sa.MetaData, dialect: Dialect) -> None:
        self._default = dialect.default_schema_name
        self._folds = dialect.name == "postgresql"
        self._tables = {key: key for key in metadata.tables}
        self._columns = {
            key: {column.name: column.name for column in table.columns}
            for key, table in metadata.tables.items()
        }

    def table(self, key: str) -> str:
        """Return the name now of a table of the start."""
        return self._tables[key]

    def column(self, key: str, name: str) -> str:
        """Return the name now of a column of the start."""
        return self._columns[key][name]

    def original(self, key: str) -> str | None:
        """Return the name at the start of a table that is named so now."""
        return next((old for old, now in self._tables.items() if self._is(now, key)), None)

    def all_of(self, key: str, column: str | None) -> set[str]:
        """Return what a table of the start, or its column, is called at the start and now."""
        if key not in self._tables:
            return set()
        tables = {key, self._tables[key]}
        if column is None:
            return tables
        columns = {column, self._columns[key].get(column, column)}
        return {f"{table}.{name}" for table in tables for name in columns}

    def declare(self, what: str, to: str) -> None:
        """Take note of a rename that was not seen, as a revision declares it.

        :param what: ``table`` or ``table.column``, by the name before or at the start.
        :param to: the new name; of a column with its table or without.
        """
        if self.original(what) or what in self._tables:
            self._tables[self.original(what) or what] = to
            return
        table, _, column = what.rpartition(".")
        original = self.original(table) or (table if table in self._tables else None)
        if original is not None:
            for first, now in self._columns[original].items():
                if column in (first, now):
                    self._columns[original][first] = to.rpartition(".")[2]

    # --- what is executed

    def executed(self, statement: str) -> None:
        """Take note of a statement."""
        if re.search(r"\bRENAME\b|\bCHANGE\b|\bSET\s+SCHEMA\b", statement, re.I) is None:
            return
        for table, clauses in _ALTER.findall(statement):
            self._altered(self._key(table), clauses)
        for pairs in _RENAME.findall(statement):
            for table, new in _PAIR.findall(pairs):
                self.rename_table(self._key(table), self._key(new))

    def _altered(self, key: str, clauses: str) -> None:
        for renamed, changed, new in _COLUMN.findall(clauses):
            self.rename_column(key, self._bare(renamed or changed), self._bare(new))
        schema, _, name = key.rpartition(".")
        for new in _TABLE.findall(clauses):
            self.rename_table(key, f"{schema}.{self._bare(new)}" if schema else self._key(new))
        for other in _SCHEMA.findall(clauses):
            self.rename_table(key, self._key(f"{other}.{name}"))

    def copied(self, insert: Any) -> None:
        """Take note of the copy that batch mode makes of a table; columns get new names in it."""
        if not isinstance(insert, sa.Insert) or insert.select is None:
            return
        target: Any = insert.table
        if not target.name.startswith(TEMPORARY):
            return
        name = target.name.removeprefix(TEMPORARY)
        key = f"{target.schema}.{name}" if target.schema else name
        given: Iterable[Any] = getattr(insert, "_select_names", None) or ()
        for new, source in zip(given, insert.select.selected_columns, strict=False):
            old = source
            while isinstance(old, (sa.Cast, sa.Label)):  # of a new type
                old = old.clause if isinstance(old, sa.Cast) else old.element
            if isinstance(old, sa.Column):
                self.rename_column(key, old.name, target.columns[new].name)

    def rename_table(self, old: str, new: str) -> None:
        """Take note that a table was renamed."""
        if old.startswith(TEMPORARY) or new.startswith(TEMPORARY):
            return
        original = self.original(old)
        if original is not None:
            self._tables[original] = new

    def rename_column(self, table: str, old: str, new: str) -> None:
        """Take note that a column of a table, by its name now, was renamed."""
        original = self.original(table)
        if original is None or old == new:
            return
        for first, now in self._columns[original].items():
            if self._is(now, old):
                self._columns[original][first] = new
                return

    def _key(self, name: str) -> str:
        parts = [self._bare(part) for part in re.findall(_PART, name)]
        if len(parts) > 1 and parts[0] == self._default:
            parts = parts[1:]
        return ".".join(parts)

    def _bare(self, name: str) -> str:
        if name[0] in '"`':
            return name[1:-1].replace('""', '"')
        return name.lower() if self._folds else name

    def _is(self, name: str, other: str) -> bool:
        return name == other or (not self._folds and name.casefold() == other.casefold())
