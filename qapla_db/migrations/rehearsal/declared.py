"""What revisions declare about the data: comments in their files.

::

    # qapla: loses airport.iata, nobody reads it since 3.2
    # qapla: loses airport, moved to another database
    # qapla: loses rows of airport, those without a name
    # qapla: changes airport.elevation, feet to metres
    # qapla: renames airport.elevation to airport.elevation_m, copied and dropped
    # qapla: skips runway.line, no values are known for paths
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from qapla_db.migrations.rehearsal.report import Finding

__all__ = ["Declaration", "apply", "declarations_in"]

Verb = Literal["loses", "changes", "renames", "skips"]

_OURS = re.compile(r"#\s*qapla:\s*(?P<verb>loses|changes|renames|skips)\b(?P<rest>.*)")
_REST = re.compile(
    r"\s+(?P<rows>rows\s+of\s+)?(?P<what>[\w.$]+)(?:\s+to\s+(?P<to>[\w.$]+))?\s*,"
    r"\s*(?P<reason>\S.*)"
)
# what each accepts, and nothing besides
_OF_TABLE: dict[str, tuple[str, ...]] = {
    "loses": ("lost table",),
    "skips": ("not rehearsed",),
}
_OF_ROWS: tuple[str, ...] = ("lost rows", "data after downgrade")
_OF_COLUMN: dict[str, tuple[str, ...]] = {
    "loses": ("lost column", "data after downgrade"),
    "changes": ("changed values", "data after downgrade"),
    "skips": ("not rehearsed",),
}
_FORMS = {
    "loses": "TABLE.COLUMN, REASON (or TABLE, or rows of TABLE)",
    "changes": "TABLE.COLUMN, REASON",
    "renames": "OLD to NEW, REASON",
    "skips": "TABLE, REASON (or TABLE.COLUMN)",
}


@dataclass(frozen=True)
class Declaration:
    """What a revision says that it does on purpose.

    :ivar revision: its id.
    :ivar verb: what it does.
    :ivar what: ``table`` or ``table.column``, by the name before.
    :ivar to: the name afterwards, of what it renames.
    :ivar reason: why.
    :ivar of_rows: it loses rows of a table.
    """

    revision: str
    verb: Verb
    what: str
    to: str | None
    reason: str
    of_rows: bool = False

    def covers(self, finding: Finding, names: Collection[str]) -> bool:
        """Tell whether it speaks of a finding: of a table as a whole, a column, or rows.

        :param names: what the finding's table or column is called, on the whole way.
        """
        if self.of_rows:
            kinds = _OF_ROWS
        elif finding.column is not None:
            kinds = _OF_COLUMN.get(self.verb, ())
        else:
            kinds = _OF_TABLE.get(self.verb, ())
        return finding.kind in kinds and self.what in names

    def __str__(self) -> str:
        return f"{self.verb} {'rows of ' if self.of_rows else ''}{self.what}"


def declarations_in(path: str | Path, revision: str) -> tuple[list[Declaration], list[Finding]]:
    """Return what a revision's file declares, and what it declares without a reason.

    :param path: the file.
    :param revision: the revision's id.
    """
    found, wrong = [], []
    for comment in _comments(Path(path)):
        match = _OURS.match(comment)
        if match is None:
            continue
        rest, verb = _REST.fullmatch(match["rest"].rstrip()), cast(Verb, match["verb"])
        if rest is None or not _fits(verb, rest):
            message = f"{path}: {comment!r} is not understood; write # qapla: {verb} {_FORMS[verb]}"
            wrong.append(Finding("declaration", message, revision=revision))
            continue
        of_rows = rest["rows"] is not None
        found.append(Declaration(revision, verb, rest["what"], rest["to"], rest["reason"], of_rows))
    return found, wrong


def _fits(verb: Verb, rest: re.Match[str]) -> bool:
    if (verb == "renames") != (rest["to"] is not None):
        return False
    if verb == "changes" and "." not in rest["what"]:
        return False
    return verb == "loses" or rest["rows"] is None


def _comments(path: Path) -> Iterable[str]:
    with tokenize.open(path) as file:
        text = file.read()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def apply(
    findings: Iterable[Finding],
    declarations: Iterable[Declaration],
    names_of: Callable[[Finding], Collection[str]],
) -> tuple[list[Finding], list[str]]:
    """Mark the findings that are declared.

    :param names_of: returns what a finding's table or column is called, on the whole way.
    :returns: the findings, and a note for each declaration that nothing was found for.
    """
    declarations = sorted(declarations, key=lambda one: (one.revision, one.what, one.verb))
    used: set[Declaration] = set()
    marked = []
    for finding in findings:
        fitting = [one for one in declarations if one.covers(finding, names_of(finding))]
        used.update(fitting)
        if fitting:
            revision = finding.revision or fitting[0].revision
            finding = replace(finding, declared=fitting[0].reason, revision=revision)
        marked.append(finding)
    notes = [
        f"{one.revision} declares that it {one}, of which nothing was seen"
        for one in declarations
        if one not in used and one.verb in ("loses", "changes")
    ]
    return marked, notes
