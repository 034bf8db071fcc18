"""New revisions: what differs between the models and the migrations."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from qapla_db.database import Database
from qapla_db.errors import MigrationError
from qapla_db.migrations.commands import Report, run_alembic
from qapla_db.migrations.directory import COMPLETED, require_template
from qapla_db.migrations.environment import DIRECTIVES
from qapla_db.migrations.renames import Answers, Ask, Detection
from qapla_db.migrations.shadow import shadow
from qapla_db.migrations.written_file import removed_if_broken

__all__ = ["make_revision"]


def make_revision(
    database: Database,
    message: str,
    *,
    empty: bool = False,
    renames: Iterable[str] = (),
    other_renames: bool = True,
    ask: Ask | None = None,
    report: Report | None = None,
) -> Path | None:
    """Write a revision that takes a database from its last revision to what the models say.

    The models are compared with a shadow database at the last revision, so no
    migrated database of a developer is needed, and what was changed there by hand
    does not get into the revision. A column or table that was renamed keeps its
    data: what is gone and what is new is asked about, unless ``renames`` or
    ``info={"renamed_from": ...}`` in the models says it.

    :param database: a prepared database, not of the environment ``production``.
    :param message: what the revision does, in a few words.
    :param empty: write one without operations, for a data migration by hand.
    :param renames: what was renamed: ``users.age:height`` a column,
        ``users:people`` a table.
    :param other_renames: whether there may be others than those; False drops and
        creates without a question.
    :param ask: gets a question such as ``Was users.age renamed to users.height?`` and
        returns the answer; None where nobody can be asked.
    :param report: gets a line for each step.
    :returns: the file, or None when nothing differs; then none is written.
    :raises Refused: something may have been renamed and nobody can be asked; the
        message has the flags of the command line that decide it.
    :raises InvalidArgument: a rename fits nothing.
    :raises MigrationError: there are several heads, a revision failed in the shadow, or
        what was written is no Python, or uses what it does not import.
    """
    answers = Answers(database.name, tuple(renames), ask, other_renames)
    written: list[Path] = []

    def prepare(config: Config) -> None:
        config.cmd_opts = Namespace(autogenerate=not empty, x=None, quiet=True)
        config.attributes[DIRECTIVES] = Detection(answers)

    def write(config: Config) -> None:
        prepare(config)
        with removed_if_broken(database):
            found: Any = command.revision(config, message, autogenerate=not empty)
        written.extend(Path(one.path) for one in _list(found))
        if empty:  # its env.py is not run
            config.attributes[COMPLETED] = database.name

    def check(config: Config) -> None:
        prepare(config)
        script = ScriptDirectory.from_config(config)
        require_template(config, script.dir)
        _require_one_head(database.name, script)
        config.attributes[COMPLETED] = database.name

    run_alembic(database, check)
    if empty:
        run_alembic(database, write, report=report)
    else:
        with shadow(database) as made:
            run_alembic(database, write, report=report, url=made.url)
    return written[0] if written else None


def _require_one_head(name: str, script: ScriptDirectory) -> None:
    heads = script.get_heads()
    if len(heads) > 1:
        raise MigrationError(
            f"the migrations of the database {name!r} have {len(heads)} heads, "
            f"{', '.join(sorted(heads))} ({script.dir}): merge them before another revision is "
            f"written, with: qapla-db merge {name}"
        )


def _list(found: Any) -> list[Any]:
    many = found if isinstance(found, list) else [found]
    return [one for one in many if one is not None]
