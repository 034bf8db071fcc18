"""The models of a database, as its ``env.py`` hands them to AlembicEnv."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from qapla_db.database import Database
from qapla_db.migrations.commands import run_alembic
from qapla_db.migrations.environment import MODELS

__all__ = ["models_of"]


def models_of(database: Database) -> list[sa.MetaData]:
    """Return the metadata of a database's models.

    Its ``env.py`` is run for it, but no database is connected or needed.

    :param database: a prepared database.
    :raises MigrationError: its migrations directory has no ``env.py``, or one that
        hands no models to AlembicEnv.
    """
    found: list[sa.MetaData] = []

    def run(config: Config) -> None:
        config.attributes[MODELS] = found
        script = ScriptDirectory.from_config(config)
        with EnvironmentContext(config, script):
            script.run_env()

    run_alembic(database, run)
    return found
