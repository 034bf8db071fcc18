"""What a rehearsal has found, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Kind", "Rehearsal", "RehearsedRevision"]

Kind = Literal[
    "lost table",
    "lost column",
    "lost rows",
    "changed values",
    "failed upgrade",
    "failed downgrade",
    "schema after downgrade",
    "data after downgrade",
    "models",
    "declaration",
    "not rehearsed",
]


@dataclass(frozen=True)
class Finding:
    """Something that the upgrade or the downgrade does to the data, or cannot do.

    :ivar kind: what it is.
    :ivar message: the same in a sentence.
    :ivar table: the table, by its old name.
    :ivar column: the column, by its old name.
    :ivar revision: the revision that did it, where that is known.
    :ivar rows: how many rows it is about.
    :ivar examples: some of these rows.
    :ivar declared: why it is meant to be so, as the revision's file says.
    """

    kind: Kind
    message: str
    table: str | None = None
    column: str | None = None
    revision: str | None = None
    rows: int = 0
    examples: tuple[str, ...] = ()
    declared: str | None = None


@dataclass(frozen=True)
class RehearsedRevision:
    """What one revision did to the tables that were there before it.

    :ivar revision: its id.
    :ivar title: the first line of its docstring.
    :ivar seconds: how long its upgrade took.
    :ivar locks: table -> strongest lock of those that let others wait (PostgreSQL).
    :ivar rewritten: tables that were written anew as a whole (PostgreSQL, SQLite).
    :ivar downgrade_seconds: how long its downgrade took; None if it was not run.
    """

    revision: str
    title: str
    seconds: float
    locks: Mapping[str, str] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()
    downgrade_seconds: float | None = None


@dataclass(frozen=True)
class Rehearsal:
    """The report of :func:`~qapla_db.migrations.rehearsal.rehearse`.

    :ivar database: the database's name.
    :ivar start: the revisions that it began with.
    :ivar end: the revisions that it came to.
    :ivar tables: how many tables there were at the start.
    :ivar rows: how many rows were stored in them.
    :ivar seed: of the random numbers that the rows came from.
    :ivar revisions: what was applied.
    :ivar findings: what was found, declared or not.
    :ivar notes: what is worth knowing besides.
    :ivar seconds: how long each part took.
    """

    database: str
    start: tuple[str, ...]
    end: tuple[str, ...]
    tables: int
    rows: int
    seed: int
    revisions: tuple[RehearsedRevision, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that the revisions do not declare."""
        return all(one.declared is not None for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return it as what ``json.dumps`` takes."""
        found = asdict(self)
        found["ok"] = self.ok
        return found

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        start, end = (", ".join(heads) or "base" for heads in (self.start, self.end))
        lines = [
            f"{self.database}: {start} -> {end}, {_count(len(self.revisions), 'revision')} on "
            f"{_count(self.rows, 'row')} in {_count(self.tables, 'table')}"
        ]
        for one in self.revisions:
            lines += _revision_lines(one)
        for finding in self.findings:
            lines += _finding_lines(finding)
        lines += [f"  note: {note}" for note in self.notes]
        spent = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in self.seconds.items())
        lines.append(f"  took {sum(self.seconds.values()):.2f} s: {spent}")
        lines.append(f"{self.database}: {self._verdict()}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _verdict(self) -> str:
        open_ones = sum(1 for one in self.findings if one.declared is None)
        declared = len(self.findings) - open_ones
        if open_ones:
            more = f", and {declared} declared" if declared else ""
            return f"{open_ones} found that no revision declares{more}"
        return f"nothing found but {declared} declared" if declared else "nothing found"


def _revision_lines(one: RehearsedRevision) -> list[str]:
    back = "" if one.downgrade_seconds is None else f", back {_short(one.downgrade_seconds)}"
    title = f" {one.title}" if one.title else ""
    lines = [f"  {one.revision}{title}: {_short(one.seconds)}{back}"]
    lines += [f"    locks {table}: {mode}" for table, mode in one.locks.items()]
    lines += [f"    writes {table} anew" for table in one.rewritten]
    return lines


def _finding_lines(finding: Finding) -> list[str]:
    word = "declared" if finding.declared is not None else "FOUND"
    where = f" (by {finding.revision})" if finding.revision else ""
    why = f": {finding.declared}" if finding.declared else ""
    lines = [f"  {word} {finding.kind}: {finding.message}{where}{why}"]
    return lines + [f"    {example}" for example in finding.examples]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
