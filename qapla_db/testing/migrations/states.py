"""What is in a scratch database, to be compared with what is in another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.migrations.looking import version_table_of
from qapla_db.migrations.rehearsal.losses import read_before
from qapla_db.migrations.rehearsal.schema import Schema, schema_of
from qapla_db.migrations.rehearsal.snapshot import Cells
from qapla_db.migrations.rows import reflect
from qapla_db.record import RECORD_TABLE

__all__ = ["Bookkeeping", "State", "row_differences"]

_WIDTH = 60


@dataclass(frozen=True)
class State:
    """What is in a database.

    :ivar schema: its tables, with the version table and without our record, and all else.
    :ivar rows: of each table.
    """

    schema: Schema
    rows: Mapping[str, Cells]


@dataclass(frozen=True)
class Bookkeeping:
    """The tables of ours and of Alembic, by their keys.

    :ivar record: our record.
    :ivar versions: the version table.
    """

    record: frozenset[str]
    versions: frozenset[str]

    @classmethod
    def of(cls, database: Database) -> Bookkeeping:
        """Return those of a database; nothing is connected."""
        table, schema = version_table_of(database)
        return cls(_keys(RECORD_TABLE, schema), _keys(table, schema))

    def state(self, connection: Connection) -> State:
        """Return what is in a database."""
        metadata = reflect(connection)
        rows = read_before(connection, metadata, self.record).cells
        return State(_schema(connection, metadata, self.record), rows)

    def schema(self, connection: Connection) -> Schema:
        """Return what is in a database besides rows, and without the version table."""
        return _schema(connection, reflect(connection), self.record | self.versions)

    def left_out(self, schema: Schema) -> Schema:
        """Return a schema without the version table."""
        ours = {f"table {key}" for key in self.versions}
        return {name: parts for name, parts in schema.items() if name not in ours}


def _keys(table: str, schema: str | None) -> frozenset[str]:
    # of the usual schema a table has no schema in its key
    return frozenset([table, *([f"{schema}.{table}"] if schema else [])])


def _schema(connection: Connection, metadata: sa.MetaData, skip: Collection[str]) -> Schema:
    found = schema_of(connection, metadata, skip)
    if connection.dialect.name == "postgresql":  # elsewhere a schema is a database
        for name in sa.inspect(connection).get_schema_names():
            found[f"schema {name}"] = {}
    return found


# --- rows


def row_differences(
    online: Mapping[str, Cells],
    offline: Mapping[str, Cells],
    online_again: Callable[[], Mapping[str, Cells]],
) -> Iterator[str]:
    """Yield what differs in the rows of two databases that have the same tables.

    :param online_again: makes the first one once more, after both. Columns that are not the
        same then, such as moments and random keys, are not compared.
    """
    differing = [key for key in sorted(online) if _differ(online[key], offline[key])]
    if not differing:
        return
    again = online_again()
    for key in differing:
        first, second = online[key], offline[key]
        if len(first.raw) != len(second.raw):
            yield f"{key} has {len(first.raw)} rows online, and {len(second.raw)} offline"
            continue
        columns = [
            place
            for place in range(len(first.columns))
            if _projected(first, [place]) == _projected(again[key], [place])
        ]
        here, there = _projected(first, columns), _projected(second, columns)
        if here != there:
            one, other = (next(iter(left)) for left in (here - there, there - here))
            names = [first.columns[place] for place in columns]
            yield f"{key}: online {_shown(names, one)}; offline {_shown(names, other)}"


def _differ(first: Cells, second: Cells) -> bool:
    every = range(len(first.columns))
    return first.raw != second.raw and _projected(first, every) != _projected(second, every)


def _projected(cells: Cells, columns: Sequence[int]) -> Counter[tuple[str, ...]]:
    # as text: not every type of a driver can be a key
    return Counter(tuple(str(row[place]) for place in columns) for row in cells.rows())


def _shown(names: Sequence[str], values: Sequence[str]) -> str:
    cells = (f"{name}={value[:_WIDTH]}" for name, value in zip(names, values, strict=True))
    return f"({', '.join(cells)})"
