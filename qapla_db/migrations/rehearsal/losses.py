"""What the tables have lost on the way, as findings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.migrations.rehearsal.compare import Changed, Difference, difference
from qapla_db.migrations.rehearsal.names import Names
from qapla_db.migrations.rehearsal.report import Finding, Kind
from qapla_db.migrations.rehearsal.snapshot import Cells, keys_of, read_cells

__all__ = ["Before", "losses_after_downgrade", "losses_after_upgrade", "read_before"]


@dataclass(frozen=True)
class Before:
    """The tables at the start.

    :ivar metadata: their schema.
    :ivar cells: of each table.
    """

    metadata: sa.MetaData
    cells: Mapping[str, Cells]


def read_before(connection: Connection, metadata: sa.MetaData, skip: Collection[str]) -> Before:
    """Read all cells of a database."""
    cells = {}
    for key, table in metadata.tables.items():
        if key not in skip:
            columns = [column.name for column in table.columns]
            order = next(iter(keys_of(table)), ())
            cells[key] = read_cells(connection, table, columns, order)
    return Before(metadata, cells)


def losses_after_upgrade(
    connection: Connection, before: Before, after: sa.MetaData, names: Names
) -> tuple[list[Finding], list[str]]:
    """Return what an upgrade has lost or changed, and notes on what is new."""
    findings, notes = [], []
    for key, cells in before.cells.items():
        table = after.tables.get(names.table(key))
        if table is None and names.original(key) is None:
            table = after.tables.get(key)  # a new one, to which the renamed one was copied
        if table is None:
            count = len(cells.raw)
            findings.append(Finding("lost table", f"{key}, {_rows(count)}", key, rows=count))
            continue
        now = {name: names.column(key, name) for name in cells.columns}
        left = {name: new for name, new in now.items() if new in table.columns}
        anew = {*table.columns.keys()} - {*now.values()}
        left |= {name: name for name in now if name not in left and name in anew}
        findings += [_lost_column(key, cells, name) for name in cells.columns if name not in left]
        found = _difference(connection, before, key, table, left)
        if found is not None:
            findings += _findings(key, found)
            if found.new and not found.lost:
                notes.append(f"{_rows(found.new)} more in {key}")
    return findings, notes


def losses_after_downgrade(
    connection: Connection, before: Before, after: sa.MetaData, known: Collection[Finding]
) -> list[Finding]:
    """Return what is not as it was when the way was gone there and back.

    :param known: what the upgrade has lost already, which no downgrade brings back.
    """
    lost_tables = {one.table for one in known if one.kind in ("lost table", "lost rows")}
    lost_columns = {(one.table, one.column) for one in known if one.column is not None}
    findings: list[Finding] = []
    for key in before.cells.keys() & after.tables.keys() - lost_tables:
        table = after.tables[key]
        left = {
            name: name
            for name in before.cells[key].columns
            if name in table.columns and (key, name) not in lost_columns
        }
        found = _difference(connection, before, key, table, left)
        if found is not None:
            kind: Kind = "data after downgrade"
            findings += [replace(one, kind=kind) for one in _findings(key, found)]
    return sorted(findings, key=lambda one: (one.table or "", one.column or ""))


def _difference(
    connection: Connection,
    before: Before,
    key: str,
    table: sa.Table,
    left: Mapping[str, str],
) -> Difference | None:
    """Compare what is left of a table.

    :param table: as it is now.
    :param left: the columns that are left, old name -> new name.
    """
    old_table = before.metadata.tables[key]
    primary = next((one for one in keys_of(old_table) if set(one) <= left.keys()), ())
    cells = read_cells(connection, table, list(left.values()), [left[name] for name in primary])
    kinds: dict[str, tuple[Any, Any]] = {
        name: (old_table.columns[name].type, table.columns[new].type) for name, new in left.items()
    }
    after = Cells(tuple(left), cells.raw)
    return difference(before.cells[key], after, primary, kinds)


def _lost_column(key: str, cells: Cells, name: str) -> Finding:
    place = cells.columns.index(name)
    count = sum(1 for row in cells.rows() if row[place] is not None)
    return Finding("lost column", f"{key}.{name}, values in {_rows(count)}", key, name, rows=count)


def _findings(key: str, found: Difference) -> list[Finding]:
    findings = []
    if found.lost:
        message = f"{found.lost} of {_rows(found.before)} of {key}"
        if found.new:
            message += f", and {found.new} others are there instead"
        findings.append(Finding("lost rows", message, key, None, None, found.lost, found.examples))
    for name, changed in found.changed.items():
        message = f"{key}.{name} in {changed.count} of {_rows(found.before)}{_to_null(changed)}"
        examples = tuple(changed.examples)
        findings.append(
            Finding("changed values", message, key, name, None, changed.count, examples)
        )
    return findings


def _to_null(changed: Changed) -> str:
    if not changed.to_null:
        return ""
    return ", to NULL" if changed.to_null == changed.count else f", {changed.to_null} to NULL"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
