"""Rows to store, of any form, brought into parts whose rows all have the same fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import ClauseElement

from qapla_db.errors import InvalidRow, Misuse, UnknownField
from qapla_db.query.fields import is_given_by_database, mapper_of
from qapla_db.query.grouping import KeyOrder, places
from qapla_db.query.keys import table_of

__all__ = ["BLOCK", "Part", "Row", "Shape", "check_no_expression", "chunks"]

BLOCK = 500
"""Rows that are looked at together: enough to be quick, few enough that the server waits little."""

Row: TypeAlias = Mapping[str, Any]

_PATHS = sa.JSON.JSONElementType  # which make a text of a None


@dataclass(frozen=True, slots=True)
class Part:
    """Rows with the same fields.

    :ivar fields: the names of the model's attributes.
    :ivar rows: mappings with just these fields.
    :ivar numbers: the rows' numbers, counted from 0 over all rows of the call.
    """

    fields: tuple[str, ...]
    rows: Sequence[Row]
    numbers: Sequence[int]


def chunks(rows: Iterable[Any], size: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield lists of so many rows, each with the number of its first row."""
    if isinstance(rows, Mapping | str | bytes):
        raise Misuse(
            f"an iterable of rows is needed, not one {type(rows).__name__}; put it into a list"
        )
    if not any(hasattr(type(rows), name) for name in ("__iter__", "__getitem__")):
        raise Misuse(f"an iterable of rows is needed, not {rows!r}")
    iterator, start = iter(rows), 0
    while chunk := list(islice(iterator, size)):
        yield start, chunk
        start += len(chunk)


class Shape:
    """What a model's rows may hold, and how they are brought into parts.

    :param model: the mapped class.
    :param exact: no field is added to a row that lacks it, and the rows keep their order.
    :param ordered: the rows keep their order.
    :param order: what tells the rows among which the order matters; without, it does among all.
    :param dialect: of the database; without, no field is added.
    """

    def __init__(
        self,
        model: type[Any],
        *,
        exact: bool,
        ordered: bool = False,
        order: KeyOrder | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.model = model
        self.table = table_of(model)
        mapper = mapper_of(model)
        self.columns = _columns(mapper, self.table)
        self.fields = {column: field for field, column in reversed(self.columns.items())}
        self.constants = _constants(mapper, self.fields)
        self._mapper = mapper
        self._exact = exact or dialect is None
        self._known = frozenset(self.columns)
        self._given_by_database = frozenset(
            field for field, column in self.columns.items() if is_given_by_database(column)
        )
        self._fillers = {} if dialect is None else self._make_fillers(dialect)
        refers = _refers_to_itself(self.table)
        self._is_free = not (exact or ordered) and not refers
        self._order = None if refers else order
        serial = self.table.autoincrement_column
        self._serial = self.fields.get(serial) if serial is not None else None

    def parts(self, rows: Sequence[Any], start: int) -> Iterator[Part]:
        """Yield the rows in parts of at most ``BLOCK``.

        :param start: the number of the first row.
        :raises UnknownField: a row has a field that the model has not.
        :raises InvalidRow: a row is none, or has a field that cannot be given.
        """
        for at in range(0, len(rows), BLOCK):
            block = rows[at : at + BLOCK]
            numbers = range(start + at, start + at + len(block))
            yield from self._of_block(block, numbers)

    def _of_block(self, block: Sequence[Any], numbers: range) -> Iterator[Part]:
        if set(map(type, block)) != {dict}:
            block = [self._mapping(row, number) for row, number in zip(block, numbers, strict=True)]
        kinds = set(map(tuple, block))
        for kind in kinds:
            if not self._known.issuperset(kind) or not self._given_by_database.isdisjoint(kind):
                self._refuse(block, numbers)
        if self._serial is not None and any(self._serial in kind for kind in kinds):
            block = [_without_none(row, self._serial) for row in block]
            kinds = set(map(tuple, block))
        if len(kinds) > 1:
            yield from self._of_mixed(block, numbers)
        else:
            yield Part(kinds.pop(), block, numbers)

    def _of_mixed(self, block: Sequence[Row], numbers: range) -> Iterator[Part]:
        if not self._exact:
            wanted = dict.fromkeys(name for row in block for name in row)
            fillers = {name: self._fillers[name] for name in wanted if name in self._fillers}
            block = [{**fillers, **row} for row in block]
        numbered = list(zip(map(frozenset, block), block, numbers, strict=True))
        if self._is_free:  # nothing depends on the order of these rows
            kinds = dict.fromkeys(one[0] for one in numbered)
            # a key that the database gives must not be one that a later row has
            ranked = sorted(kinds, key=lambda kind: self._serial not in kind)
            order = {kind: at for at, kind in enumerate(ranked)}
            numbered.sort(key=lambda one: order[one[0]])
        elif self._order is not None:
            given = {self.columns[name] for row in block for name in row}
            keys = self._order.keys(block, given)
            if keys is not None:
                place = dict(zip(numbers, places([one[0] for one in numbered], keys), strict=True))
                numbered.sort(key=lambda one: place[one[2]])
        for _, group in groupby(numbered, key=lambda one: one[0]):
            members = list(group)
            yield Part(
                tuple(members[0][1]), [one[1] for one in members], [one[2] for one in members]
            )

    def _make_fillers(self, dialect: Dialect) -> dict[str, Any]:
        """Return what stands in rows without a field, for which the database knows no default."""
        fillers = dict(self.constants)
        for field, column in self.columns.items():
            default: Any = column.default
            if field in fillers or _has_server_default(column):
                continue
            if default is not None:
                if default.is_scalar:
                    fillers[field] = default.arg
                continue
            kind = column.type.dialect_impl(dialect)
            if isinstance(kind, sa.JSON) and kind.should_evaluate_none:
                # it stores a None as a value, and NULL has to be said otherwise
                fillers[field] = sa.null()
            elif not (kind.should_evaluate_none or isinstance(kind, _PATHS)):
                fillers[field] = None
        return fillers

    def _mapping(self, row: Any, number: int) -> Row:
        if isinstance(row, dict):
            return row
        if isinstance(row, Mapping):
            return dict(row)
        if isinstance(row, self.model):
            return self._of_instance(row, number)
        raise InvalidRow(
            f"row {number} is {type(row).__name__}, but has to be a mapping of field to value or "
            f"an instance of {self.model.__name__}",
            row=number,
        )

    def _of_instance(self, instance: Any, number: int) -> Row:
        state: Any = sa.inspect(instance)
        if not state.transient:
            raise InvalidRow(
                f"row {number} is an instance that a session has already, and would be stored "
                "twice; leave it to the session, or make a new instance",
                row=number,
            )
        mapper: Mapper[Any] = state.mapper
        table_of(mapper.class_)
        loaded = state.dict
        for name in mapper.relationships.keys():  # noqa: SIM118
            if loaded.get(name):
                raise InvalidRow(
                    f"row {number}: {name!r} is a relationship, which is not followed here; set "
                    "the fields of its foreign key, or use session.add_all()",
                    row=number,
                    field=name,
                )
        # a None that the type does not store as a value means: the default, as in a flush
        row = {
            name: value
            for name, value in loaded.items()
            if name in self.columns
            and (value is not None or self.columns[name].type.should_evaluate_none)
        }
        return {**_constants(mapper, self.fields), **row}

    def _refuse(self, block: Sequence[Row], numbers: range) -> None:
        for row, number in zip(block, numbers, strict=True):
            unknown = [name for name in row if name not in self._known]
            described = self._mapper.all_orm_descriptors
            strange = [name for name in unknown if name not in described]
            if strange:
                known = sorted(self._known - self._given_by_database)
                raise UnknownField(self.model, strange, known, row=number)
            given = [name for name in row if name in self._given_by_database]
            for name in (*unknown, *given):
                why = (
                    "is given by the database; leave it out"
                    if name in given
                    else "is no column; give the fields of the columns behind it"
                )
                raise InvalidRow(
                    f"row {number}: the field {name!r} of {self.model.__name__} {why}",
                    row=number,
                    field=name,
                )


def check_no_expression(
    column: sa.Column[Any], values: Sequence[Any], numbers: Sequence[int], field: str
) -> None:
    """Raise InvalidRow where a value is an SQL expression: the driver would make a text of it.

    :param values: those of the column, as the rows have them; JSON may have null(), for NULL.
    :param numbers: the rows' numbers.
    """
    strange = {kind for kind in set(map(type, values)) if _is_expression(kind)}
    if strange and isinstance(column.type, sa.types.TypeDecorator):
        is_json = isinstance(column.type.impl_instance, sa.JSON)
    else:
        is_json = isinstance(column.type, sa.JSON)
    if is_json:
        strange.discard(sa.Null)
    if not strange:
        return
    row = next(row for value, row in zip(values, numbers, strict=True) if type(value) in strange)
    raise InvalidRow(
        f"row {row}: the value of {field!r} is an SQL expression, which no row of many "
        "can hold; give a value (for NULL a None, or leave the field out), or use "
        "session.execute(insert(...).values(...))",
        row=row,
        field=field,
    )


def _is_expression(kind: type[Any]) -> bool:
    return issubclass(kind, ClauseElement) or hasattr(kind, "__clause_element__")


def _without_none(row: Row, field: str) -> Row:
    """Leave out a key of None: on every kind of database it is given by the database then."""
    if field not in row or row[field] is not None:
        return row
    return {name: value for name, value in row.items() if name != field}


def _has_server_default(column: sa.Column[Any]) -> bool:
    return (
        column.server_default is not None
        or column.identity is not None
        or column is column.table.autoincrement_column
    )


def _columns(mapper: Mapper[Any], table: sa.Table) -> dict[str, sa.Column[Any]]:
    found: dict[str, sa.Column[Any]] = {}
    for one in mapper.self_and_descendants:
        if one.local_table is not table or one.concrete != mapper.concrete:
            continue
        for attribute in one.column_attrs:
            column = attribute.columns[0]
            if isinstance(column, sa.Column) and column.table is table:
                found.setdefault(attribute.key, column)
    return found


def _constants(mapper: Mapper[Any], fields: Mapping[sa.Column[Any], str]) -> dict[str, Any]:
    """Return the fields that a row has by the class it is of: discriminator and version."""
    found: dict[str, Any] = {}
    kind: Any = mapper.polymorphic_on
    if kind in fields and mapper.polymorphic_identity is not None:
        found[fields[kind]] = mapper.polymorphic_identity
    version: Any = mapper.version_id_col
    generate: Any = mapper.version_id_generator
    if version is not None and version in fields and callable(generate):
        found[fields[version]] = generate(None)
    return found


def _refers_to_itself(table: sa.Table) -> bool:
    return any(key.references(table.primary_key.table) for key in table.foreign_keys)
