"""What is wrong with a migrations directory, said before Alembic says it or says nothing."""

from __future__ import annotations

import os
import sys
from typing import Any

from alembic import context
from alembic.config import Config

from qapla_db.errors import MigrationError, MigrationIncomplete
from qapla_db.migrations.command_error import as_command_error

__all__ = ["COMPLETED", "expect_run", "nothing_done", "require_section", "require_template"]

COMPLETED = "qapla_db.completed"
"""Key in ``config.attributes``: the database for which the environment has run."""

TEMPLATE = "script.py.mako"


def nothing_done(name: str, directory: str) -> MigrationIncomplete:
    """Return the error of a database whose ``env.py`` ran nothing."""
    return MigrationIncomplete(
        f"nothing was done to the database {name!r}: {directory}/env.py does not end with "
        f"AlembicEnv(app, Model, {name!r}).run()"
    )


def expect_run(name: str) -> None:
    """Fail the Alembic command that is under way if its ``env.py`` ends having run nothing.

    Outside of a command it does nothing. An ``env.py`` that configures Alembic
    in its own way has run something.

    :param name: the database's name.
    :raises MigrationIncomplete: (later, out of the command) nothing was run.
    """
    environment: Any = getattr(context, "_proxy", None)
    # Alembic has no hook for the end of env.py, but this is a method that it calls then
    leave = getattr(environment, "_remove_proxy", None)
    if leave is None:
        return
    directory = environment.script.dir
    handled = sys.exception()  # by who called the command

    def leave_and_check() -> None:
        leave()
        error = sys.exception()
        has_failed = error is not None and error is not handled
        has_run = COMPLETED in environment.config.attributes or _is_configured(environment)
        if not has_failed and not has_run:
            raise as_command_error(nothing_done(name, directory))

    environment._remove_proxy = leave_and_check


def _is_configured(environment: Any) -> bool:
    try:
        environment.get_context()
    except Exception:  # as Alembic raises it, nothing narrower
        return False
    return True


def require_section(config: Config) -> None:
    """Refuse ``alembic -n NAME`` where the ini file has no such section.

    With a ``[tool.alembic]`` in pyproject.toml Alembic would take what stands
    there, which is another database's.

    :raises MigrationError: it has none.
    """
    path, section = config.config_file_name, config.config_ini_section
    if section == "alembic" or path is None or not os.path.isfile(path):
        return
    if config.file_config.has_section(section):
        return
    known = ", ".join(config.file_config.sections())
    raise MigrationError(
        f"{path} has no section [{section}] (it has: {known}), and what [tool.alembic] in "
        "pyproject.toml says is not taken instead; correct the name after -n"
    )


def require_template(config: Config, directory: str) -> None:
    """Refuse ``alembic revision`` in a directory without the template of revisions.

    :raises MigrationError: it is missing.
    """
    is_revision = hasattr(config.cmd_opts, "autogenerate")
    if is_revision and not os.path.isfile(os.path.join(directory, TEMPLATE)):
        source = os.path.join(config.get_template_directory(), "generic", TEMPLATE)
        raise MigrationError(
            f"{directory} has no {TEMPLATE}, the template of new revisions; copy Alembic's from "
            f"{source}"
        )
