"""Where the models and a database differ."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import RevisionContext
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from qapla_db.database import Database
from qapla_db.migrations.commands import run_alembic

__all__ = ["differences"]


def differences(database: Database, *, url: sa.URL | None = None) -> list[str]:
    """Return what autogenerate would change, a line each; nothing is written.

    :param database: a prepared database, at head.
    :param url: another database to look at, such as a shadow.
    :raises MigrationError: it is not at head.
    :raises ServerError: the database cannot be reached.
    """
    found: list[Any] = []

    def run(config: Config) -> None:
        # as Alembic's command "check" does it, whose error has no differences before 1.16
        script = ScriptDirectory.from_config(config)
        revision = RevisionContext(config, script, dict(_ARGUMENTS))

        def compare(heads: Any, context: MigrationContext) -> list[Any]:
            revision.run_autogenerate(heads, context)
            return []

        with EnvironmentContext(
            config,
            script,
            fn=compare,
            template_args=revision.template_args,
            revision_context=revision,
        ):
            script.run_env()
        for operations in revision.generated_revisions[-1].upgrade_ops_list:
            found.extend(operations.as_diffs())

    run_alembic(database, run, url=url)
    return [line for one in found for line in _lines(one)]


_ARGUMENTS: dict[str, Any] = {
    "message": None,
    "autogenerate": True,
    "sql": False,
    "head": "head",
    "splice": False,
    "branch_label": None,
    "version_path": None,
    "rev_id": None,
    "depends_on": None,
}


def _lines(difference: Any) -> list[str]:
    if isinstance(difference, list):  # of one column
        return [_line(one) for one in difference]
    return [_line(difference)]


def _line(difference: tuple[Any, ...]) -> str:
    """Return a difference for people: ``add column airport.elevation``."""
    verb, *parts = difference
    words = str(verb).replace("_", " ")
    if words.startswith("modify"):
        schema, table, column = parts[:3]
        where = ".".join(str(part) for part in (schema, table, column) if part)
        return f"{words} of {where}: {parts[-2]!r} becomes {parts[-1]!r}"
    return " ".join([words, *filter(None, map(_named, _significant(parts)))])


def _significant(parts: list[Any]) -> list[Any]:
    """Return what is at issue: of (schema, table, column) the column with its table."""
    if len(parts) == 3 and isinstance(parts[2], sa.Column):
        return [".".join(str(part) for part in (*parts[:2], parts[2].name) if part)]
    return parts


def _named(part: Any) -> str:
    if isinstance(part, sa.Table):
        return str(part.fullname)
    if isinstance(part, sa.Index | sa.Constraint):
        name = str(part.name or f"({', '.join(_columns(part))})")
        table = getattr(part, "table", None)
        return name if table is None else f"{name} on {table.fullname}"
    return part if isinstance(part, str) else ""


def _columns(part: Any) -> list[str]:
    return [str(getattr(one, "name", one)) for one in getattr(part, "columns", ())]
