"""The door to the migrations: what every migrations directory's ``env.py`` imports."""

from qapla_db.migrations.environment import AlembicEnv

__all__ = ["AlembicEnv"]
