"""Many rows at once, at the speed of the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session

from qapla_db.backends.copying import can_copy
from qapla_db.backends.states import is_autocommit
from qapla_db.errors import InvalidArgument, InvalidRow, Unsupported
from qapla_db.query import CHUNK
from qapla_db.query.batches import expire
from qapla_db.query.conflicts import OnConflict, Rule, rule_of
from qapla_db.query.copied import CopyStore, Repeated
from qapla_db.query.faults import blamed, is_of_a_row, key_of, line_of, refused_field, said_of_row
from qapla_db.query.fields import mapper_of
from qapla_db.query.grouping import KeyOrder
from qapla_db.query.inserts import PlainStore
from qapla_db.query.rows import Part, Shape, check_no_expression, chunks
from qapla_db.query.steady import check_transaction, steady
from qapla_db.query.targets import announce_write, bind_of, session_of

__all__ = ["bulk_insert"]

M = TypeVar("M")

FEW = 60
"""Below so many rows a plain INSERT is quicker than COPY."""


def bulk_insert(
    session: Session | scoped_session[Any],
    model: type[M],
    rows: Iterable[Any],
    *,
    on_conflict: OnConflict = "error",
    by: str | Sequence[str] | None = None,
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Store many rows in the session's transaction, under a savepoint.

    After an error none of the rows is stored, and the transaction can go on.
    Pending objects of the session are stored first. On PostgreSQL the rows go
    through COPY, elsewhere through an INSERT that the driver runs for many.
    Constructors, validators and events of instances are not run, and objects
    that the session holds already are not refreshed, except with "update".

    A field that a row lacks gets its default, of Python or of the database; a
    None is stored as NULL (as a JSON null where the type is told to). A primary
    key of None, that the database can give, is given by the database. The rows
    may differ in their fields.

    :param session: nothing is committed.
    :param model: the mapped class; it has one table.
    :param rows: mappings of field to value, or new instances, which stay out of the session.
        Any iterable; it is read as the rows are stored, and may use the session itself.
    :param on_conflict: a row whose unique key exists is an error; or it is left out ("ignore");
        or it changes the fields that it has in the row that exists ("update"). Of several rows
        with one key the first is stored with "ignore", the last one wins with "update".
    :param by: the field, or fields, of the unique key that is meant; needed for "update".
        "ignore" without it leaves out what meets any key.
    :param chunk: number of rows held in memory and sent at once.
    :param progress: called after each chunk with the number of rows read so far.
    :returns: how many rows were inserted or updated.
    :raises Conflict: a row breaks a rule of the database; it has the row's number.
    :raises InvalidRow: a row cannot be stored; it has the row's number.
    :raises UnknownField: a row has a field that the model has not.
    :raises Unsupported: the model has several tables, no unique key is named by ``by``, or the
        database cannot tell which unique key a row meets.
    :raises ReadOnlyError: the session is read-only.
    :raises Misuse: the iterable, or ``progress``, has ended the transaction; it says how many
        rows that has stored.
    """
    session = session_of(session)
    if getattr(session, "read_only", False):
        announce_write(session, "store rows")
    rule = rule_of(model, on_conflict, by)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise InvalidArgument(f"chunk is a number of rows from 1 on, not {chunk!r}")
    # of rows with one key the first or the last is meant, also where their fields differ
    shape = Shape(
        model,
        exact=on_conflict == "update",
        ordered=on_conflict == "ignore",
        order=_order(session, model, rule),
        dialect=bind_of(session, model).dialect,
    )
    load = _Load(session, shape, rule)
    try:
        with steady(session) as savepoint:
            announce_write(session, "store rows")
            for start, read in chunks(rows, chunk):
                savepoint.check()
                session.flush()  # what the iterable may have added
                load.store(read, start)
                savepoint.rows = start + len(read)
                if progress is not None:
                    progress(savepoint.rows)
                    savepoint.check()
            load.close()
    except _NotLocated as error:
        raise load.located(error) from error.cause
    if on_conflict == "update":
        expire(session, mapper_of(model))
    return load.stored


def _order(session: Session, model: type[Any], rule: Rule) -> KeyOrder | None:
    if rule.key is None:
        return None
    mapper = mapper_of(model)
    key = {mapper.get_property_by_column(column).key: column for column in rule.key}
    return KeyOrder(model, key, bind_of(session, model).dialect.name)


class _NotLocated(Exception):
    """A statement for many rows failed, and does not say because of which."""

    def __init__(self, cause: Exception, parts: Sequence[Part]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.parts = parts


class _Load:
    """The storing of the rows of one call."""

    def __init__(self, session: Session, shape: Shape, rule: Rule) -> None:
        self.stored = 0
        self._session = session
        self._shape = shape
        self._rule = rule
        self._copy: CopyStore | None = None

    def store(self, rows: Sequence[Any], start: int) -> None:
        """Store a chunk of rows."""
        connection = self._connection()
        check_transaction(connection)
        by_copy = len(rows) >= FEW and can_copy(connection.dialect)
        if by_copy and self._copy is None:
            self._copy = CopyStore(connection, self._shape, self._rule)
        parts = self._shape.parts(rows, start)
        for fields, group in groupby(parts, key=lambda part: part.fields):
            seen = _Seen(group)
            self._check_key(fields, seen)
            if by_copy and self._copy is not None and self._copy.takes(fields):
                with suppress(Repeated):
                    self.stored += self._by_copy(self._copy, fields, seen)
                    continue
            self.stored += self._plainly(connection, fields, seen)

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()

    def located(self, error: _NotLocated) -> Exception:
        """Find the row of an error by storing its part again, and undoing that."""
        plain = PlainStore(self._connection(), self._shape, self._rule)
        fields = error.parts[0].fields
        rows = list(chain.from_iterable(part.rows for part in error.parts))
        numbers = list(chain.from_iterable(part.numbers for part in error.parts))
        savepoint = self._session.begin_nested()
        try:
            found = blamed(self._connection(), lambda some: plain.store(fields, some), rows)
        finally:
            savepoint.rollback()
        # what came before in the same call is not there now: another error tells nothing
        same = found is not None and _same(found[1], error.cause)
        return said_of_row(error.cause, self._shape, numbers[found[0]] if found and same else None)

    def _connection(self) -> Connection:
        mapper = mapper_of(self._shape.model)
        connection = self._session.connection(bind_arguments={"mapper": mapper})
        if is_autocommit(connection):
            raise Unsupported(
                "rows are stored all or none, which takes a transaction; this session's "
                "connection is in AUTOCOMMIT"
            )
        return connection

    def _check_key(self, fields: tuple[str, ...], group: _Seen) -> None:
        for column in self._rule.key or ():
            field = self._shape.fields[column]
            if field in fields or self._rule.on_conflict != "update":
                continue
            if field not in self._shape.constants:
                row = next(iter(group)).numbers[0]
                raise InvalidRow(
                    f"row {row} lacks {field!r}, which is of the key in by=", row=row, field=field
                )

    def _by_copy(self, copy: CopyStore, fields: tuple[str, ...], group: _Seen) -> int:
        try:
            return copy.store(fields, iter(group))
        except Exception as error:
            if not is_of_a_row(error):
                raise
            line = line_of(error)
            if line is not None:
                row = group.number(copy.before + line)
            else:
                row = group.with_key(error, self._shape)
            if row is None:
                raise _NotLocated(error, group.parts) from error
            raise said_of_row(error, self._shape, row) from error

    def _plainly(self, connection: Connection, fields: tuple[str, ...], group: _Seen) -> int:
        plain = PlainStore(connection, self._shape, self._rule)
        parts = list(group)
        rows = list(chain.from_iterable(part.rows for part in parts))
        numbers = list(chain.from_iterable(part.numbers for part in parts))
        for field in fields:
            values = [row[field] for row in rows]
            check_no_expression(self._shape.columns[field], values, numbers, field)
        try:
            with connection.begin_nested():
                return plain.store(fields, rows)
        except Exception as error:
            if not is_of_a_row(error):
                raise
            found = blamed(connection, lambda some: plain.store(fields, some), rows)
            if found is None:
                raise said_of_row(error, self._shape, None) from error
            at, cause = found
            refused = refused_field(cause, self._shape, connection.dialect, rows[at])
            raise said_of_row(cause, self._shape, numbers[at], refused) from error


class _Seen:
    """An iterator over parts that remembers them."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self.parts: list[Part] = []
        self._rest = parts

    def __iter__(self) -> Iterator[Part]:
        yield from self.parts
        for part in self._rest:
            self.parts.append(part)
            yield part

    def number(self, index: int) -> int | None:
        """Return the number of a row by its place among those that were iterated over."""
        for part in self.parts:
            if index < len(part.numbers):
                return part.numbers[index]
            index -= len(part.numbers)
        return None

    def with_key(self, error: Exception, shape: Shape) -> int | None:
        """Return the number of the only row that has the key which PostgreSQL names."""
        key = key_of(error)
        if key is None:
            return None
        fields = {column.name: field for column, field in shape.fields.items()}
        names = [fields.get(name, "") for name in key[0]]
        found = [
            number
            for part in self.parts
            for row, number in zip(part.rows, part.numbers, strict=True)
            if ", ".join(str(row.get(name)) for name in names) == key[1]
        ]
        return found[0] if len(found) == 1 else None


def _same(one: Exception, other: Exception) -> bool:
    def told(error: Exception) -> object:
        said = getattr(getattr(error, "orig", None), "diag", None)
        return said and (said.sqlstate, said.constraint_name, said.message_primary)

    return told(one) == told(other)
