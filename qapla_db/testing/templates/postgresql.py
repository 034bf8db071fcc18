"""Templates on PostgreSQL: databases that nobody connects to.

``CREATE DATABASE ... TEMPLATE`` fails while somebody is connected to the template
(https://www.postgresql.org/docs/current/manage-ag-templatedbs.html), hence ``ALLOW_CONNECTIONS``.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import sqlalchemy as sa

from qapla_db.backends.postgresql import drop_database, end_connections, ending_statements
from qapla_db.errors import ServerError
from qapla_db.owners import is_abandoned, new_token
from qapla_db.testing.snapshot import Snapshot
from qapla_db.testing.templates.server import ServerTemplates

__all__ = ["PostgreSQLTemplates"]

log = logging.getLogger("qapla_db")

COPY_WAIT = 30.0
"""Seconds to wait for others who copy the same template."""

_NAMESPACE = 0x71AA
_UNFINISHED = "_template_new_"
_IN_USE = "55006"
_GONE = ("3D000", "42704")

_DESCRIPTION = """
SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database
WHERE datname = :name
"""
# of the database itself, and not in it: CREATE DATABASE leaves them behind
_BESIDE = """
SELECT datacl IS NOT NULL OR EXISTS (
    SELECT FROM pg_catalog.pg_db_role_setting WHERE setdatabase = d.oid)
OR EXISTS (SELECT FROM pg_catalog.pg_subscription WHERE subdbid = d.oid)
FROM pg_catalog.pg_database AS d WHERE datname = :name
"""


class PostgreSQLTemplates(ServerTemplates):
    """Databases with a comment that says what they were made from."""

    _snapshot: Snapshot | None = None

    def version(self) -> str:
        return str(self.connection.exec_driver_sql("SHOW server_version").scalar())

    def _try_lock(self, name: str) -> bool:
        query = f"SELECT pg_catalog.pg_try_advisory_lock({_NAMESPACE}, {_key(name)})"
        return bool(self.connection.exec_driver_sql(query).scalar())

    def _unlock(self, name: str) -> None:
        self.connection.exec_driver_sql(
            f"SELECT pg_catalog.pg_advisory_unlock({_NAMESPACE}, {_key(name)})"
        )

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        if self.connection.execute(sa.text(_BESIDE), {"name": self.name}).scalar():
            return False
        self._drop_templates()
        # under a name that is nobody's until it is finished
        unfinished = self._unfinished(new_token())
        end_connections(self.connection, self.name)
        self._copy(self.name, unfinished)
        run, name = self.connection.exec_driver_sql, self.quoted(unfinished)
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false IS_TEMPLATE true")
        text = self.described(digest, files).replace("\\", "\\\\").replace("'", "''")
        run(f"COMMENT ON DATABASE {name} IS E'{text}'")
        run(f"ALTER DATABASE {name} RENAME TO {self.quoted(self.template(digest))}")
        return True

    def clone(self, digest: str) -> bool:
        self.database.dispose()
        self._snapshot = None
        end_connections(self.connection, self.name)
        try:
            self._drop(self.name)
        except ServerError:
            self.make_droppable()
            self._drop(self.name)
        try:
            self._copy(self.template(digest), self.name)
        except sa.exc.DBAPIError as error:
            if self.settings.backend.error_code(error.orig or error) in _GONE:
                return False  # another run has dropped it, for its own
            raise
        return True

    @cached_property
    def _strategy(self) -> str:
        """Copy files as they are where the server waits for no disk: it takes half the time."""
        waits = self.connection.exec_driver_sql("SHOW fsync").scalar() != "off"
        is_old = (self.connection.dialect.server_version_info or ()) < (15,)
        return "" if waits or is_old else " STRATEGY file_copy"

    def _copy(self, template: str, name: str) -> None:
        deadline = time.monotonic() + COPY_WAIT
        while True:
            try:
                self.connection.exec_driver_sql(
                    f"CREATE DATABASE {self.quoted(name)} TEMPLATE {self.quoted(template)}"
                    f"{self._strategy}"
                )
                return
            except sa.exc.DBAPIError as error:
                code = self.settings.backend.error_code(error.orig or error)
                if code != _IN_USE:
                    raise
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"the test database {name!r} cannot be copied from {template!r}: others "
                        f"have used that for {COPY_WAIT:g} s (see pg_stat_activity)"
                    ) from error
            time.sleep(0.01)

    def _drop_templates(self) -> None:
        super()._drop_templates()
        # and what was left of one whose making was interrupted
        for name in self._names():
            token = name.rpartition(_UNFINISHED)[2]
            if name == self._unfinished(token) and is_abandoned(token):
                self._drop(name)

    def _unfinished(self, token: str) -> str:
        return self.settings.backend.fitting_name(self.base, _UNFINISHED + token)

    def _names(self) -> Sequence[str]:
        query = "SELECT datname FROM pg_catalog.pg_database"
        return self.connection.exec_driver_sql(query).scalars().all()

    def _description(self, template: str) -> str | None:
        return self.connection.execute(sa.text(_DESCRIPTION), {"name": template}).scalar()

    def _drop(self, name: str) -> None:
        quoted = self.quoted(name)
        is_template = sa.text(
            "SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = :name"
        )
        if self.connection.execute(is_template, {"name": name}).scalar():
            self.connection.exec_driver_sql(f"ALTER DATABASE {quoted} IS_TEMPLATE false")
        drop_database(self.connection, name, self.settings.name)

    def make_droppable(self) -> None:
        statements = ending_statements(self.connection, self.name)
        if not statements:
            return
        settings = self.settings
        with settings.backend.administration(
            settings.url, settings.url, settings.access
        ) as connection:
            for statement in statements:
                # what this user may not end is named by who drops the database
                with suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    # --- rows

    def prepare_restore(self) -> None:
        self._snapshot = Snapshot.of(self.database.engine)

    def restore(self) -> bool:
        return self._snapshot is not None and self._snapshot.restore(self.database.engine)


def _key(name: str) -> int:
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
