"""Templates on MariaDB and MySQL, which copy no databases: their tables are made again.

A database with more in it than tables (views, triggers, routines, events, sequences) has none;
its migrations run each time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qapla_db.backends.mysql import end_process
from qapla_db.record import sharing
from qapla_db.testing.templates.base import template_ending
from qapla_db.testing.templates.server import ServerTemplates

__all__ = ["MySQLTemplates"]

_DESCRIPTION = "qapla_db_template"
"""A table in a template that says what it was made from; it is made last."""

_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")

_WAITS = "SET SESSION lock_wait_timeout = 2, innodb_lock_wait_timeout = 2"
_AS_IT_IS = (
    "SET SESSION foreign_key_checks = 0, unique_checks = 0, sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
)

_TABLES = """
SELECT table_name FROM information_schema.tables WHERE table_schema = :name
AND table_name <> 'qapla_db_template' ORDER BY table_name
"""
_OTHERS = """
SELECT (SELECT count(*) FROM information_schema.tables
        WHERE table_schema = :name AND table_type <> 'BASE TABLE')
+ (SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = :name)
+ (SELECT count(*) FROM information_schema.routines WHERE routine_schema = :name)
+ (SELECT count(*) FROM information_schema.events WHERE event_schema = :name)
"""
# innodb_trx, which knows whose transactions are open, is a tenth of a second late
_CONNECTED = "SELECT id FROM information_schema.processlist WHERE db = :name"
_COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = :name AND table_name = :table
AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position
"""
_CHARACTERS = """
SELECT default_character_set_name, default_collation_name FROM information_schema.schemata
WHERE schema_name = :name
"""


@dataclass(frozen=True)
class _State:
    """What is compared to see what a test has changed."""

    tables: dict[str, str]
    counters: dict[str, str]
    checksums: dict[str, Any]


class MySQLTemplates(ServerTemplates):
    """Databases with a table that says what they were made from."""

    _digest = ""
    _state: _State | None = None

    def version(self) -> str:
        return str(self._scalar("SELECT VERSION()"))

    def _try_lock(self, name: str) -> bool:
        return bool(self._scalar(f"SELECT GET_LOCK('{_lock_name(name)}', 0)"))

    def _unlock(self, name: str) -> None:
        self._scalar(f"SELECT RELEASE_LOCK('{_lock_name(name)}')")

    def find(self, digest: str) -> Mapping[str, str] | None:
        return self.files_in(self._description(self.template(digest)), digest)

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        if self._scalar(_OTHERS, name=self.name):
            return False
        self._drop_templates()
        template = self.template(digest)
        self._copy(self.name, template)
        description = f"{self.quoted(template)}.{_DESCRIPTION}"
        self._run(f"CREATE TABLE {description} (description LONGTEXT) CHARACTER SET utf8mb4")
        self.connection.execute(
            sa.text(f"INSERT INTO {description} VALUES (:text)"),  # noqa: S608
            {"text": self.described(digest, files)},
        )
        self._digest = digest
        return True

    def clone(self, digest: str) -> bool:
        self.database.dispose()
        self._state = None
        if self.find(digest) is None:
            return False
        settings = self.settings
        settings.backend.drop(settings.url, settings.default_url, settings.access)
        self._copy(self.template(digest), self.name)
        self._digest = digest
        return True

    # --- copies

    def _copy(self, source: str, target: str) -> None:
        characters, collation = self._one(_CHARACTERS, name=source)
        self._run(
            f"CREATE DATABASE {self.quoted(target)} CHARACTER SET {characters} COLLATE {collation}"
        )
        self._run(_AS_IT_IS)
        for table in self._tables(source):
            statement = self._definition(source, table)
            self._run(f"USE {self.quoted(target)}")
            self._run(statement)
            self._copy_rows(source, target, table)
        # who drops the database ends whoever uses it
        self._run("USE information_schema")

    def _copy_rows(self, source: str, target: str, table: str) -> None:
        names = self._all(_COLUMNS, name=source, table=table)
        columns = ", ".join(self.quoted(name) for (name,) in names)
        quoted = self.quoted(table)
        self._run(
            f"INSERT INTO {self.quoted(target)}.{quoted} ({columns}) "  # noqa: S608
            f"SELECT {columns} FROM {self.quoted(source)}.{quoted}"
        )

    def _drop_templates(self) -> None:
        """Drop those of this database, with what was left of one whose making was interrupted."""
        prefix = self.template("0" * 64).removesuffix(template_ending("0" * 64))
        pattern = re.compile(f"{re.escape(prefix)}_template_[0-9a-f]+")
        for (name,) in self._all("SELECT schema_name FROM information_schema.schemata"):
            if not pattern.fullmatch(name):
                continue
            description = self._description(name)
            is_unfinished = description is None and prefix == self.base
            if is_unfinished or self.is_ours(description):
                self._run(f"DROP DATABASE IF EXISTS {self.quoted(name)}")

    def _description(self, template: str) -> str | None:
        found = self._scalar(
            "SELECT count(*) FROM information_schema.tables "
            "WHERE table_schema = :name AND table_name = :table",
            name=template,
            table=_DESCRIPTION,
        )
        if not found:
            return None
        text = self._scalar(f"SELECT description FROM {self.quoted(template)}.{_DESCRIPTION}")  # noqa: S608
        return None if text is None else str(text)

    # --- rows

    def prepare_restore(self) -> None:
        self._state = self._look(self.name)

    def restore(self) -> bool:
        before = self._state
        if before is None:
            return False
        try:
            self._run(_WAITS)
            self._run(_AS_IT_IS)
            for database in sharing(self.database):
                database.dispose()
            for (process,) in self._all(_CONNECTED, name=self.name):
                end_process(self.connection, process)
            now = self._look(self.name)
            if now is None or now.tables != before.tables:
                return False
            template = self.template(self._digest)
            for table, checksum in before.checksums.items():
                if now.checksums[table] != checksum:
                    self._run(f"DELETE FROM {self.quoted(self.name)}.{self.quoted(table)}")  # noqa: S608
                    self._copy_rows(template, self.name, table)
            now = self._look(self.name)
            for table, counter in before.counters.items():
                if now is not None and now.counters[table] != counter:
                    self._run(
                        f"ALTER TABLE {self.quoted(self.name)}.{self.quoted(table)} "
                        f"AUTO_INCREMENT = {counter}"
                    )
            return self._look(self.name) == before
        except sa.exc.DBAPIError:
            return False  # others keep a table locked; a copy ends their connections

    def _look(self, name: str) -> _State | None:
        if self._scalar(_OTHERS, name=name):
            return None
        tables = self._tables(name)
        definitions = {table: self._definition(name, table) for table in tables}
        checksums: dict[str, Any] = {}
        if definitions:
            names = ", ".join(f"{self.quoted(name)}.{self.quoted(one)}" for one in definitions)
            found = self._all(f"CHECKSUM TABLE {names}")
            checksums = dict(zip(definitions, (checksum for _, checksum in found), strict=True))
        return _State(
            {table: _COUNTER.sub("", text, count=1) for table, text in definitions.items()},
            {table: _counter(text) for table, text in definitions.items()},
            checksums,
        )

    # --- statements

    def _tables(self, name: str) -> list[str]:
        return [table for (table,) in self._all(_TABLES, name=name)]

    def _definition(self, name: str, table: str) -> str:
        statement = f"SHOW CREATE TABLE {self.quoted(name)}.{self.quoted(table)}"
        return str(self._one(statement)[1])

    def _all(self, query: str, **parameters: str) -> list[Any]:
        if parameters:
            return list(self.connection.execute(sa.text(query), parameters))
        return list(self.connection.exec_driver_sql(query))

    def _one(self, query: str, **parameters: str) -> Any:
        return self._all(query, **parameters)[0]

    def _scalar(self, query: str, **parameters: str) -> Any:
        return self._one(query, **parameters)[0]

    def _run(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement)


def _counter(definition: str) -> str:
    found = _COUNTER.search(definition)
    return found.group(1) if found else "1"


def _lock_name(name: str) -> str:
    return f"qapla_db_{hashlib.sha256(name.encode()).hexdigest()[:40]}"
