"""The image of a SQLite database in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qapla_db.testing.templates.base import NoTemplates

__all__ = ["MemoryTemplates"]


class MemoryTemplates(NoTemplates):
    """One image, of this process: nobody else has this database, or finds the image."""

    _image: tuple[str, bytes] | None = None

    def version(self) -> str:
        return sqlite3.sqlite_version

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        with self._connection() as connection:
            self._image = digest, connection.serialize()
        return True

    def clone(self, digest: str) -> bool:
        if self._image is None or self._image[0] != digest:
            return False
        self.database.dispose()
        with self._connection() as connection:
            connection.deserialize(self._image[1])
        return True

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with self.database.engine.connect() as connection:
            yield connection.connection.dbapi_connection
