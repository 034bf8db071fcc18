"""Which revision did what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from alembic.runtime.migration import MigrationStep

from qapla_db.migrations.rehearsal.names import Names
from qapla_db.migrations.rehearsal.report import Finding
from qapla_db.migrations.rehearsal.watch import Seen

__all__ = ["author_of", "id_of"]


def id_of(step: MigrationStep) -> str:
    """Return the revision of a step."""
    known: Any = step
    return str(known.revision.revision)


def author_of(finding: Finding, seen: list[Seen], names: Names) -> str | None:
    """Return the revision whose statements name what a finding is about, if it is only one."""
    if len(seen) == 1:
        return id_of(seen[0].step)
    if finding.table is None:
        return None
    tables = {one.rpartition(".")[2] for one in names.all_of(finding.table, None)}
    columns = {
        one.rpartition(".")[2]
        for one in names.all_of(finding.table, finding.column)
        if finding.column is not None and one.rpartition(".")[2] not in tables
    }
    for words in ([tables, columns] if columns else [tables], [tables]):
        authors = {
            id_of(one.step)
            for one in seen
            if any(all(_mentions(text, group) for group in words) for text in one.statements)
        }
        if len(authors) == 1:
            return authors.pop()
    return None


def _mentions(statement: str, words: Iterable[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", statement) for word in words)
