"""What squawk, a linter of PostgreSQL's SQL, finds besides (https://squawkhq.com)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qapla_db.backends.base import log
from qapla_db.migrations.offline import Emitted

__all__ = ["OURS", "Remark", "remarks"]

WAIT = 30.0
"""Seconds that squawk may take."""

OURS = {
    "adding-field-with-default": ("rewrite",),
    "adding-foreign-key-constraint": ("foreign-key",),
    "adding-not-nullable-field": ("set-not-null", "add-not-null"),
    "adding-required-field": ("add-not-null", "rewrite"),
    "adding-serial-primary-key-field": ("primary-key",),
    "ban-alter-domain-with-add-constraint": ("check",),
    "ban-concurrent-index-creation-in-transaction": ("index-in-transaction",),
    "ban-drop-column": ("drop-column", "alter-type"),
    "ban-drop-database": ("drop-schema",),
    "ban-drop-domain": ("drop-object",),
    "ban-drop-extension": ("drop-object",),
    "ban-drop-function": ("drop-object",),
    "ban-drop-schema": ("drop-schema",),
    "ban-drop-sequence": ("drop-object",),
    "ban-drop-table": ("drop-table",),
    "ban-drop-type": ("drop-object",),
    "ban-drop-view": ("drop-object",),
    "ban-set-schema": ("rename-table", "alter-type"),
    "ban-truncate-cascade": ("delete-rows",),
    "changing-column-type": ("change-type",),
    "constraint-missing-not-valid": (
        "foreign-key",
        "check",
        "unique-constraint",
        "primary-key",
    ),
    "disallowed-unique-constraint": ("unique-constraint",),
    "renaming-column": ("rename-column",),
    "renaming-object": ("alter-type",),
    "renaming-table": ("rename-table",),
    "require-concurrent-index-creation": ("create-index",),
    "require-concurrent-index-deletion": ("drop-index",),
    "require-concurrent-partition-detach": ("detach-partition",),
    "require-concurrent-reindex": ("reindex",),
}
"""Rules of squawk and those of ours that see the same."""

_TASTE = (
    "ban-char-field",
    "ban-uncommitted-transaction",
    "identifier-too-long",
    "prefer-",
    "require-enum-value-ordering",
    "require-lock-timeout",  # set for every revision, where its env.py leaves it so
    "require-statement-timeout",
    "require-timeout-settings",
    "transaction-nesting",
)


@dataclass(frozen=True)
class Remark:
    """What squawk says of a statement."""

    rule: str
    message: str
    remedy: str
    statement: Emitted


def remarks(emitted: Sequence[Emitted]) -> Iterator[Remark]:
    """Yield what squawk finds in the statements of a revision; nothing where it is not installed.

    Matters of taste are left out, and what a migration run sets by itself.
    """
    program = _program()
    if program is None or not emitted:
        return
    starts, lines = list[int](), list[str]()
    for one in emitted:
        starts.append(len(lines))
        lines += [*f"{one.sql};".splitlines()]
    for found in _ask(program, "\n".join(lines) + "\n"):
        rule = str(found.get("rule_name", ""))
        if not rule.startswith(_TASTE):
            place = max(bisect_right(starts, int(found.get("line", 0))) - 1, 0)
            message = " ".join(str(found.get("message") or "").split())
            remedy = " ".join(str(found.get("help") or "").split()).rstrip(".")
            yield Remark(rule, message, remedy, emitted[place])


def _program() -> str | None:
    beside = os.path.dirname(sys.executable)
    return shutil.which("squawk", path=beside) or shutil.which("squawk")


def _ask(program: str, sql: str) -> list[dict[str, Any]]:
    command = [program, "--reporter", "json", "--assume-in-transaction"]
    try:
        done = subprocess.run(
            command, input=sql, capture_output=True, text=True, encoding="utf-8", timeout=WAIT
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.warning("squawk cannot be used: %s", error)
        return []
    return found if isinstance(found, list) else []
