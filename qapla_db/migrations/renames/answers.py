"""What is known about renames, and whom to ask about the others."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qapla_db.errors import InvalidArgument, Refused
from qapla_db.migrations.renames.candidates import Candidate

__all__ = ["Answers", "Ask"]

Ask = Callable[[str], bool]
"""Gets a question for people and returns their answer."""


@dataclass
class Answers:
    """What is known about renames beforehand, and whom to ask about the others.

    :param database: its name, for messages.
    :param said: ``users.age:height`` for a column, ``users:people`` for a table.
    :param ask: asks a person; None where nobody can be asked.
    :param others: whether there may be renames besides those that are said.
    """

    database: str
    said: Sequence[str] = ()
    ask: Ask | None = None
    others: bool = True

    def __post_init__(self) -> None:
        for one in self.said:
            old, colon, new = one.partition(":")
            if not (old and colon and new) or ":" in new or "." in new:
                raise InvalidArgument(
                    f"the rename {one!r} for the database {self.database!r} is not of the form "
                    "TABLE.COLUMN:NEW_NAME or TABLE:NEW_NAME"
                )
        self._used: set[str] = set()
        self.offered: list[Candidate] = []

    def choose(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return those that are renames.

        :raises Refused: somebody must decide, and nobody can be asked.
        """
        left = sorted(candidates, key=lambda one: -one.score)
        self.offered += left
        chosen: list[Candidate] = []

        def take(one: Candidate) -> None:
            chosen.append(one)
            left[:] = [other for other in left if not other.competes_with(one)]

        for one in [one for one in left if one.flags & set(self.said)]:
            if one in left:
                self._used |= one.flags & set(self.said)
                take(one)
        for one in [one for one in left if one.is_hinted]:
            if one in left:
                take(one)
        left[:] = [one for one in left if one.is_likely]
        if self.others and left and self.ask is None:
            raise self._unclear(left)
        while self.others and left:
            one = left.pop(0)
            if self.ask is not None and self.ask(one.question):
                take(one)
        return chosen

    def _unclear(self, candidates: list[Candidate]) -> Refused:
        new = {one.new: one for one in candidates}
        pairs = "; ".join(
            f"{name} is new, and "
            + " and ".join(one.old for one in candidates if one.new == name)
            + (" is" if sum(one.new == name for one in candidates) == 1 else " are")
            + " gone from the models"
            for name in new
        )
        flags = " or ".join(f"--rename {shlex.quote(one.flag)}" for one in candidates)
        return Refused(
            f"no revision of {self.database!r} is written, for it is not known what was renamed: "
            f"{pairs}. Say it with {flags} (or with info={{'renamed_from': ...}} in the models), "
            "or with --no-rename that nothing was; the data of what is dropped is lost"
        )

    def check_used(self) -> None:
        """Raise InvalidArgument for what was said and fits nothing."""
        unused = [one for one in self.said if one not in self._used]
        if not unused:
            return
        possible = ", ".join(sorted({one.flag for one in self.offered})) or "none"
        raise InvalidArgument(
            f"the rename {', '.join(map(repr, unused))} fits nothing that differs between the "
            f"models and the migrations of the database {self.database!r}; possible: {possible}"
        )
