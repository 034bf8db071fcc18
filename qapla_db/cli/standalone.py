"""An application that is nothing but a ``settings.py`` with ``DB_CONFIG``."""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morfdict import Paths

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database
from qapla_db.errors import (
    ConfigurationError,
    SettingInvalid,
    SettingMissing,
    SettingsModuleMissing,
)
from qapla_db.settings import LoadedSettings, Settings

__all__ = ["SETTINGS", "SettingsApplication", "settings_application"]

SETTINGS = "settings.py"
NAME = "main"
PATHS_KEY = "migrations_main"
TESTS_VARIABLE = "QAPLA_TEST_DB_MAIN_URL"

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
        self.models = self._text(config, "MODELS", "module:Base")
        self._environment = self._text(config, "ENVIRONMENT", "production")
        self._database = config

    def _text(self, config: dict[str, Any], key: str, example: str) -> str | None:
        """Take a text that is not of the URL out of the configuration."""
        value = config.pop(key, None)
        if isinstance(value, str | None):
            return value
        raise SettingInvalid(
            f'{key} in DB_CONFIG of {self.directory / SETTINGS} is not a text; write "{example}"',
            key=key,
        )

    def append_app_plugins(self) -> None:
        self.add_database_app([Database(NAME, PATHS_KEY)])

    def _load_settings(
        self, endpoint: str, settings: Mapping[str, Any] | None = None
    ) -> LoadedSettings:
        values, paths = Settings(), Paths()
        if endpoint == "tests":
            self._refuse_without_tests(settings or {})
        else:
            values[f"db:{NAME}:url"] = self._database
            values[f"db:{NAME}:environment"] = self._environment
        paths.set("project_root", str(self.directory))
        paths.set(PATHS_KEY, f"migrations/{NAME}", "project_root")
        return LoadedSettings(values, paths, endpoint, values.put(settings or {}))

    def _refuse_without_tests(self, settings: Mapping[str, Any]) -> None:
        """Refuse to take the only database that is named for the one of the tests."""
        if f"db:{NAME}:url" not in settings and not os.environ.get(TESTS_VARIABLE):
            raise SettingMissing(
                f"DB_CONFIG in {self.directory / SETTINGS} names no database of the tests; name "
                f"it in the environment: {TESTS_VARIABLE}=postgresql://USER@HOST/NAME_test",
                key=f"db:{NAME}:url",
            )


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
