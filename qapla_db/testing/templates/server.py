"""Templates on a server, over one connection beside the database."""

from __future__ import annotations

import json
import os
import random
import re
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from qapla_db.database import Database
from qapla_db.errors import ServerError
from qapla_db.testing.templates.base import BUILD_WAIT, Templates, template_ending

__all__ = ["ServerTemplates"]

_ENDING = template_ending("?" * 12).replace("?" * 12, "[0-9a-f]{12}")


class ServerTemplates(Templates):
    """Of a server whose sessions can hold locks with names."""

    def __init__(self, database: Database, base: str) -> None:
        super().__init__(database, base)
        settings = database.settings
        self._backend = settings.backend
        self._claimed = ""
        self._connect()

    def _connect(self) -> None:
        settings = self.settings
        self._stack = ExitStack()
        connection = self._stack.enter_context(
            settings.backend.administration(settings.url, settings.default_url, settings.access)
        )
        # a % in a statement is one
        self.connection: Connection = connection.execution_options(no_parameters=True)

    def claim(self, name: str) -> bool:
        is_ours = self._try_lock(f"qapla_db tests {name}")
        if is_ours:
            self._claimed = name
        return is_ours

    def reconnect(self) -> None:
        with suppress(sa.exc.DBAPIError, ServerError):
            self._stack.close()
        self._connect()
        if not self.claim(self._claimed):
            raise ServerError(
                f"the connection that reserved the test database {self._claimed!r} was ended, and "
                "another run of tests has the database now; run the tests again, and end no "
                "connections of others in them"
            )

    @contextmanager
    def building(self) -> Iterator[None]:
        lock = f"qapla_db template {self.base}"
        deadline = time.monotonic() + BUILD_WAIT
        while not self._try_lock(lock):
            if time.monotonic() > deadline:
                raise self.still_building()
            time.sleep(random.uniform(0.01, 0.05))
        try:
            yield
        finally:
            # with the session the lock is gone too
            with suppress(sa.exc.DBAPIError):
                self._unlock(lock)

    @abstractmethod
    def _try_lock(self, name: str) -> bool:
        """Lock a name for this session, or tell that another one has it."""

    @abstractmethod
    def _unlock(self, name: str) -> None: ...

    def find(self, digest: str) -> Mapping[str, str] | None:
        found = self.is_ours(self._description(self.template(digest)))
        if found is None or found.get("of_content") != digest:
            return None
        files: Mapping[str, str] = found["files"]
        return files

    def _drop_templates(self) -> None:
        """Drop those of this database."""
        pattern = re.compile(re.escape(self.template_prefix) + _ENDING)
        for name in self._names():
            if pattern.fullmatch(name) and self.is_ours(self._description(name)):
                self._drop(name)

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """Return the names of all databases on the server."""

    @abstractmethod
    def _description(self, template: str) -> str | None:
        """Return what a template says about itself; None where there is none."""

    @abstractmethod
    def _drop(self, name: str) -> None: ...

    def quoted(self, name: str) -> str:
        """Return a name for a statement."""
        by = self.connection.dialect.identifier_preparer
        # not quote_identifier(), which doubles a %
        return (
            f"{by.initial_quote}{name.replace(by.escape_quote, by.escape_to_quote)}{by.final_quote}"
        )

    def described(self, digest: str, files: Mapping[str, str]) -> str:
        """Return what a template says about itself."""
        about = {"qapla_db": "template", "of": self.base, "of_content": digest}
        return json.dumps({**about, "files": dict(files)})

    def is_ours(self, description: str | None) -> dict[str, Any] | None:
        """Return what a template of this database says; None of any other database."""
        try:
            found = json.loads(description or "")
        except ValueError:
            return None
        is_ours = isinstance(found, dict) and found.get("qapla_db") == "template"
        return found if is_ours and found.get("of") == self.base else None

    def close(self) -> None:
        if self._process == os.getpid():
            self._stack.close()

    def forget(self) -> None:
        raw = self.connection.connection.dbapi_connection
        if raw is not None:
            self._backend.orphan(raw)
