"""An application that is nothing but a ``settings.py`` with ``DB_CONFIG``."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morfdict import Paths

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import ConfigurationError, SettingInvalid, SettingsModuleMissing
from qapla_db.settings import LoadedSettings, Settings

__all__ = ["SETTINGS", "SettingsApplication", "settings_application"]

SETTINGS = "settings.py"
NAME = "main"
PATHS_KEY = "migrations_main"

_FORM = (
    'write DB_CONFIG = {"SQL": {"ENGINE": "postgresql", "HOST": ..., "USER": ..., "PASSWORD": '
    '..., "PORT": 5432, "DB_NAME": ..., "MODELS": "module:Base"}}'
)


class SettingsApplication(DatabaseApplication):
    """The database ``main`` of a ``settings.py``; its migrations are in ``migrations/main``.

    :param directory: of the ``settings.py``.
    :ivar models: ``module:Base``, where the settings name the models.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory.absolute()
        config = dict(_read(self.directory / SETTINGS))
        self.models: object = config.pop("MODELS", None)
        self._database = config
        if not isinstance(self.models, str | None):
            raise SettingInvalid(
                f"MODELS in DB_CONFIG of {self.directory / SETTINGS} is not a text; write "
                '"module:Base"',
                key="MODELS",
            )

    def append_app_plugins(self) -> None:
        self.add_database_app([Database(NAME, PATHS_KEY)])

    def _load_settings(
        self, endpoint: str, settings: Mapping[str, Any] | None = None
    ) -> LoadedSettings:
        values, paths = Settings(), Paths()
        values[f"db:{NAME}:url"] = self._database
        paths.set("project_root", str(self.directory))
        paths.set(PATHS_KEY, f"migrations/{NAME}", "project_root")
        return LoadedSettings(values, paths, endpoint, values.put(settings or {}))


def settings_application(directory: str | Path) -> SettingsApplication:
    """Return the application of the ``settings.py`` in a directory, not prepared.

    :raises SettingsModuleMissing: there is none.
    :raises ConfigurationError: it fails, or has no usable ``DB_CONFIG``.
    """
    return SettingsApplication(Path(directory))


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise SettingsModuleMissing(
            f"{path.parent} has no {path.name}; name another directory, or {_FORM} in it"
        )
    try:
        content = runpy.run_path(str(path), run_name="settings")
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{path} failed: {type(error).__name__}: {error}") from error
    config = content.get("DB_CONFIG")
    sql = config.get("SQL") if isinstance(config, Mapping) else None
    if not isinstance(sql, Mapping):
        raise ConfigurationError(f'{path} has no DB_CONFIG with "SQL"; {_FORM}')
    return sql
