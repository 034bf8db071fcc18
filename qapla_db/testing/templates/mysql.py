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

from qapla_db.backends.mysql import drop_database, end_process
from qapla_db.record import sharing
from qapla_db.testing.templates.server import ServerTemplates

__all__ = ["MySQLTemplates"]

_DESCRIPTION = "qapla_db_template"
"""A table in a template that says what it was made from; it is made last."""

_COUNTER = re.compile(r" AUTO_INCREMENT=(\d+)")
_NAME = re.compile(r"^CREATE DATABASE `(?:[^`]|``)*`")

_GONE = (1049, 1146)

RESTORE_WAIT = 2
"""Seconds that restoring waits for locks of others, before the database is made anew."""

# statements show names and literals in one way, and all times are told from each other
_AS_IT_IS = (
    "SET SESSION foreign_key_checks = 0, unique_checks = 0, time_zone = '+00:00', "
    "sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
)

_NO_LONG_WAIT = (
    f"SET SESSION lock_wait_timeout = {RESTORE_WAIT}, innodb_lock_wait_timeout = {RESTORE_WAIT}"
)

# the server compares names without their case, also where they differ in nothing else
_IS = "({0} = :name AND (@@lower_case_table_names <> 0 OR BINARY {0} = :name))"
_TABLES = f"""
SELECT table_name FROM information_schema.tables WHERE {_IS.format("table_schema")}
AND table_name <> 'qapla_db_template' ORDER BY table_name
"""  # noqa: S608
_OTHERS = f"""
SELECT (SELECT count(*) FROM information_schema.tables
        WHERE {_IS.format("table_schema")} AND table_type <> 'BASE TABLE')
+ (SELECT count(*) FROM information_schema.triggers WHERE {_IS.format("trigger_schema")})
+ (SELECT count(*) FROM information_schema.routines WHERE {_IS.format("routine_schema")})
+ (SELECT count(*) FROM information_schema.events WHERE {_IS.format("event_schema")})
"""  # noqa: S608
# innodb_trx, which knows whose transactions are open, is a tenth of a second late
_CONNECTED = f"""
SELECT id FROM information_schema.processlist
WHERE {_IS.format("db")} AND id <> CONNECTION_ID()
"""  # noqa: S608
_COLUMNS = f"""
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE {_IS.format("table_schema")} AND COALESCE(generation_expression, '') = ''
ORDER BY table_name, ordinal_position
"""  # noqa: S608

_TEXTS = {
    # as text they have fewer digits than they are stored with
    "float": "{} * 1e0",
    "double": "{} * 1e0",
    # an invalid value has the text of an empty one
    "enum": "{} + 0",
}


@dataclass(frozen=True)
class _State:
    """What is compared to see what a test has changed."""

    database: str
    tables: dict[str, str]
    counters: dict[str, str]
    columns: dict[str, list[tuple[str, str]]]
    rows: dict[str, Any]


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

    def keep(self, digest: str, files: Mapping[str, str]) -> bool:
        if self._scalar(_OTHERS, name=self.name):
            return False
        self._drop_templates()
        template = self.template(digest)
        self._create_like(self.name, template)
        table = f"{self.quoted(template)}.{_DESCRIPTION}"
        self._run(f"CREATE TABLE {table} (description LONGTEXT) CHARACTER SET utf8mb4")
        # ours from the beginning, and of no content before it is filled
        insert = sa.text(f"INSERT INTO {table} VALUES (:text)")  # noqa: S608
        self.connection.execute(insert, {"text": self.described("", {})})
        self._fill(self.name, template)
        update = sa.text(f"UPDATE {table} SET description = :text")  # noqa: S608
        self.connection.execute(update, {"text": self.described(digest, files)})
        self._digest = digest
        return True

    def clone(self, digest: str) -> bool:
        self.database.dispose()
        self._state = None
        # no other run drops the template meanwhile
        with self.building():
            if self.find(digest) is None:
                return False
            self._end_connections()
            self._drop(self.name)
            try:
                self._copy(self.template(digest), self.name)
            except sa.exc.DBAPIError as error:
                if self._code(error) in _GONE:
                    return False
                raise
        self._digest = digest
        return True

    # --- copies

    def _copy(self, source: str, target: str) -> None:
        self._create_like(source, target)
        self._fill(source, target)

    def _create_like(self, source: str, target: str) -> None:
        head = f"CREATE DATABASE {self.quoted(target)}"
        self._run(_NAME.sub(lambda _: head, self._created(source), count=1))

    def _fill(self, source: str, target: str) -> None:
        self._run(_AS_IT_IS)
        quoted = self.quoted(target)
        columns = self._columns(source)
        try:
            for table in self._tables(source):
                statement = self._definition(source, table)
                self._run(f"USE {quoted}")
                self._run(statement)
                self._copy_rows(source, target, table, columns[table])
        finally:
            # who drops the database ends whoever uses it
            self._run("USE information_schema")

    def _copy_rows(
        self, source: str, target: str, table: str, names: list[tuple[str, str]]
    ) -> None:
        columns = ", ".join(self.quoted(name) for name, _ in names)
        quoted = self.quoted(table)
        self._run(
            f"INSERT INTO {self.quoted(target)}.{quoted} ({columns}) "  # noqa: S608
            f"SELECT {columns} FROM {self.quoted(source)}.{quoted}"
        )

    def _names(self) -> list[str]:
        return [
            name for (name,) in self._all("SELECT schema_name FROM information_schema.schemata")
        ]

    def _drop(self, name: str) -> None:
        drop_database(self.connection, name, self.settings.name)

    def _description(self, template: str) -> str | None:
        found = self._scalar(
            "SELECT count(*) FROM information_schema.tables "  # noqa: S608
            f"WHERE {_IS.format('table_schema')} AND table_name = :table",
            name=template,
            table=_DESCRIPTION,
        )
        if not found:
            return None
        text = self._scalar(f"SELECT description FROM {self.quoted(template)}.{_DESCRIPTION}")  # noqa: S608
        return None if text is None else str(text)

    # --- rows

    def prepare_restore(self) -> None:
        self._run(_AS_IT_IS)
        self._state = self._look()

    def restore(self) -> bool:
        before = self._state
        if before is None:
            return False
        try:
            self._run(_AS_IT_IS)
            self._run(_NO_LONG_WAIT)
            for database in sharing(self.database):
                database.dispose()
            self._end_connections()
            if self._all("XA RECOVER"):
                return False  # nobody sees what is prepared, and what it has locked
            now = self._look()
            if now == before:
                return True
            if now is None or (now.database, now.tables) != (before.database, before.tables):
                return False
            template = self.template(self._digest)
            for table in (one for one, rows in before.rows.items() if now.rows[one] != rows):
                self._run(f"DELETE FROM {self.quoted(self.name)}.{self.quoted(table)}")  # noqa: S608
                self._copy_rows(template, self.name, table, before.columns[table])
            for table, counter in before.counters.items():
                if _counter(self._definition(self.name, table)) != counter:
                    self._run(
                        f"ALTER TABLE {self.quoted(self.name)}.{self.quoted(table)} "
                        f"AUTO_INCREMENT = {counter}"
                    )
            return self._look() == before
        except sa.exc.DBAPIError:
            return False  # others keep a table locked; a copy ends their connections

    def _look(self) -> _State | None:
        name = self.name
        if self._scalar(_OTHERS, name=name):
            return None
        definitions = {table: self._definition(name, table) for table in self._tables(name)}
        columns = self._columns(name)
        return _State(
            self._created(name),
            {table: _COUNTER.sub("", text, count=1) for table, text in definitions.items()},
            {table: _counter(text) for table, text in definitions.items()},
            columns,
            self._sums(name, {table: columns.get(table, []) for table in definitions}),
        )

    def _sums(self, name: str, tables: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
        """Return of each table how many rows it has, and the sum of their hashes."""
        if not tables:
            return {}
        queries = (
            f"SELECT {index}, COUNT(*), SUM(CAST(CONV(LEFT(MD5(CONCAT_WS('#', ''"  # noqa: S608
            f"{''.join(map(self._hashed, columns))})), 15), 16, 10) AS UNSIGNED)) "
            f"FROM {self.quoted(name)}.{self.quoted(table)}"
            for index, (table, columns) in enumerate(tables.items())
        )
        names = list(tables)
        found = self._all(" UNION ALL ".join(queries))
        return {names[index]: (count, total) for index, count, total in found}

    def _hashed(self, column: tuple[str, str]) -> str:
        name, kind = column
        # a hash is short: what is longer than a packet would be NULL
        return f", COALESCE(MD5({_TEXTS.get(kind.lower(), '{}').format(self.quoted(name))}), '-')"

    # --- statements

    def _tables(self, name: str) -> list[str]:
        return [table for (table,) in self._all(_TABLES, name=name)]

    def _columns(self, name: str) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in self._all(_COLUMNS, name=name):
            found.setdefault(table, []).append((column, kind))
        return found

    def _created(self, name: str) -> str:
        return str(self._one(f"SHOW CREATE DATABASE {self.quoted(name)}")[1])

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

    def _end_connections(self) -> None:
        for (process,) in self._all(_CONNECTED, name=self.name):
            end_process(self.connection, process)

    def _code(self, error: sa.exc.DBAPIError) -> object:
        return self.settings.backend.error_code(error.orig or error)


def _counter(definition: str) -> str:
    found = _COUNTER.search(definition)
    return found.group(1) if found else "1"


def _lock_name(name: str) -> str:
    return f"qapla_db_{hashlib.sha256(name.encode()).hexdigest()[:40]}"
