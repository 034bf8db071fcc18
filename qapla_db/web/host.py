"""The databases of a Pyramid application that has no Application class."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from morfdict import Paths

from qapla_db.database import Database
from qapla_db.errors import AlreadyPrepared, ConfigurationError, SettingInvalid, SettingMissing
from qapla_db.registry import Databases
from qapla_db.settings import ENDPOINTS, LoadedSettings, Settings

__all__ = ["ConfiguredHost"]

log = logging.getLogger("qapla_db")


class ConfiguredHost:
    """Databases that are named in the settings of a Pyramid application.

    :param names: names of the databases.
    :param values: Pyramid's settings; keys have dots (``db.main.url``).
    :param endpoint: what the application is, as the settings say.
    :raises SettingMissing: a database has no URL.
    :raises SettingInvalid: a value cannot be used.
    :raises InvalidArgument: a name cannot be the name of a database.
    """

    def __init__(self, names: Iterable[str], values: Mapping[str, Any], endpoint: str) -> None:
        if endpoint not in ENDPOINTS:
            raise SettingInvalid(
                f"'qapla_db.endpoint' is {endpoint!r}; it is one of {', '.join(ENDPOINTS)}",
                key="qapla_db.endpoint",
            )
        self.settings = Settings()
        self.settings.put(values)
        self.paths = Paths()
        self.endpoint = endpoint
        self.dbs = Databases()
        for name in names:
            self._add(Database(name, f"migrations_{name}"))

    def __repr__(self) -> str:
        return f"<ConfiguredHost for {self.endpoint!r}: {', '.join(self.dbs) or 'no database'}>"

    def _add(self, database: Database) -> None:
        self.dbs.add(database)
        try:
            database.prepare_app(self)
        except SettingMissing:
            key = f"db.{database.name}.url"
        else:
            return
        raise SettingMissing(
            f"{key!r} is not set for the database {database.name!r}, which 'qapla_db.databases' "
            f"names; set it where Pyramid's settings come from, e.g. in the .ini file: "
            f"{key} = postgresql://USER@HOST/NAME",
            key=key,
        )

    def prepare(self, endpoint: str, settings: Mapping[str, Any] | None = None) -> None:
        """Do nothing: the databases were prepared when they were configured.

        :raises AlreadyPrepared: another endpoint is asked for.
        """
        if endpoint != self.endpoint:
            raise AlreadyPrepared(
                f"the Pyramid application is set up for {self.endpoint!r} and cannot be prepared "
                f"for {endpoint!r} too; set 'qapla_db.endpoint' in its settings"
            )

    def settings_for(self, endpoint: str) -> LoadedSettings:
        """Return the settings of the endpoint that was configured; there are no others.

        :raises ConfigurationError: another endpoint is asked for.
        """
        if endpoint != self.endpoint:
            raise ConfigurationError(
                f"what {endpoint!r} would use cannot be told: Pyramid's settings are those of "
                f"{self.endpoint!r} ('qapla_db.endpoint') and of nothing else"
            )
        return LoadedSettings(self.settings, self.paths, endpoint)

    def close(self) -> None:
        """Close every database, even if one fails."""
        for database in reversed(list(self.dbs.values())):
            try:
                database.close()
            except Exception:
                log.exception("the database %r could not be closed", database.name)
