"""Changing: an instance, or rows by a key, without reading them first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.hybrid import hybrid_method, hybrid_property
from sqlalchemy.orm import Mapper, Session

from qapla_db.errors import InvalidArgument, InvalidRow, Misuse, Unsupported
from qapla_db.query.batches import Batch, Work, batches, check_row, column_of, expire, run
from qapla_db.query.bulk import bulk_insert
from qapla_db.query.conflicts import Rule, rule_of
from qapla_db.query.fields import (
    as_stored,
    check_fields,
    check_stored,
    is_given_by_database,
    is_loaded_whole,
    is_rounded,
    mapper_of,
    primary_key,
)
from qapla_db.query.inserts import PlainStore
from qapla_db.query.keys import key_fields, kind_of, table_of
from qapla_db.query.rows import Shape
from qapla_db.query.targets import AnySession, session_of
from qapla_db.query.undoing import all_or_nothing

__all__ = ["bulk_update", "delete", "update", "upsert"]

M = TypeVar("M")

Names: TypeAlias = str | Sequence[str]
Row: TypeAlias = Mapping[str, Any]


def update(session: AnySession, instance: M, values: Row) -> M:
    """Set fields of an instance, all of them or none; the next flush stores them.

    An error of the model's own code, such as a validator's, is passed on. Then
    relationships are as they were too, from either side, and so is what a setter
    of a hybrid attribute or an association proxy has changed in other instances of
    the session. What a validator has done to other instances beyond that stays.

    :param session: the session that the instance is in.
    :param instance: the instance.
    :param values: field to value.
    :returns: the instance.
    :raises UnknownField: a field that the model does not have; then nothing is set.
    :raises InvalidArgument: a field that cannot be set, or would be stored nowhere; then nothing
        is set either.
    :raises Misuse: the instance is not in this session, which would store nothing.
    """
    session = session_of(session)
    _check_is_in(session, instance)
    check_fields(type(instance), values)
    _check_can_be_set(type(instance), values)
    with all_or_nothing(session, instance, values):
        for name, value in values.items():
            setattr(instance, name, value)
    return instance


def _check_can_be_set(model: type[Any], names: Iterable[str]) -> None:
    check_stored(model, names)
    mapper = mapper_of(model)
    for name in names:
        end = mapper.relationships.get(name)
        if end is not None and end.uselist and not is_loaded_whole(end):
            raise InvalidArgument(
                f"{model.__name__}.{name} is a collection that is never loaded as a whole, so it "
                "could not be given back after an error; use its own methods, such as add()"
            )
        found: Any = mapper.all_orm_descriptors[name]
        is_read_only = isinstance(found, hybrid_property) and found.fset is None
        if is_read_only or isinstance(found, hybrid_method):
            raise InvalidArgument(
                f"{model.__name__}.{name} cannot be set; set the fields that it is made of"
            )


def delete(session: AnySession, instance: Any) -> None:
    """Delete an instance; the next flush does it.

    :raises Misuse: the instance is not in this session.
    """
    session = session_of(session)
    _check_is_in(session, instance)
    if instance in session.new:
        session.expunge(instance)  # it is nowhere yet
    else:
        session.delete(instance)


def _check_is_in(session: Session, instance: Any) -> None:
    mapper_of(type(instance))
    if instance not in session:
        raise Misuse(
            f"this {type(instance).__name__} is not in this session, which would not store its "
            "changes; add it, or read it with this session"
        )


@overload
def upsert(
    session: AnySession, model: type[M], rows: Row, *, by: Names, update: Names | None = None
) -> M: ...


@overload
def upsert(
    session: AnySession,
    model: type[M],
    rows: Iterable[Row],
    *,
    by: Names,
    update: Names | None = None,
) -> int: ...


def upsert(
    session: AnySession,
    model: type[M],
    rows: Row | Iterable[Row],
    *,
    by: Names,
    update: Names | None = None,
) -> M | int:
    """Insert rows, and change those that exist already, in the database's own way.

    It runs under a savepoint: after an error nothing of it is stored, and the
    transaction goes on. Instances of the model that are in the session are
    expired, so that nothing stale is read.

    :param session: the session.
    :param model: the mapped class.
    :param rows: one mapping of field to value, or several; where ``update`` is not given
        they are stored as by ``bulk_insert``, and may be as many as there.
    :param by: the fields of a unique key of the table.
    :param update: the fields to change in a row that exists; without it all that a row
        gives, but never its primary key. With none, ``()``, such a row is left as it is.
    :returns: for one mapping the instance; for several how many rows were stored or matched.
    :raises InvalidArgument: ``by`` names no field, or ``update`` a field of the primary key or
        one that not every row has.
    :raises Unsupported: one row is not found again once it is stored; the metadata has no such
        unique key; or, on MySQL and MariaDB,
        whose statement changes the row of whatever key is hit, there is another
        key that the rows can hit.
    :raises InvalidRow: a row lacks a value for the key, since NULL is equal to nothing, or has
        a value that cannot be stored; it has the row's number.
    :raises Conflict: a row breaks a rule of the database; it has the row's number.
    :raises UnknownField: a field that is no column of the model.
    """
    session = session_of(session)
    fields = key_fields(by)
    mapper = _check_table(model)
    if not isinstance(rows, Mapping) and update is None:
        checked = _checked(mapper, rows, fields)
        return bulk_insert(session, model, checked, on_conflict="update", by=fields)
    one = isinstance(rows, Mapping)
    given: list[Row] = [rows] if isinstance(rows, Mapping) else list(rows)
    changed = None if update is None else _changed(mapper, _names(update))
    rule = rule_of(model, "update", fields, changed)
    shape = Shape(model, exact=True)
    works = []
    found: list[M] = []
    for batch in batches(mapper, given, fields):
        _check_stored(mapper, batch, batch.names)
        if update is not None:
            _check_given(_names(update), batch.names)
        store = partial(_store, shape, rule, tuple(batch.names))
        if one:
            store = partial(_store_and_find, session, model, fields, found, store)
        works.append(Work(store, batch.rows, batch.start))
    run(session, mapper, works)
    if one:
        return found[0]
    expire(session, mapper)
    return len(given)


def bulk_update(
    session: AnySession, model: type[Any], rows: Iterable[Row], by: Names | None = None
) -> int:
    """Change rows that exist, each by its own key.

    It runs under a savepoint: after an error nothing of it is stored, and the
    transaction goes on. Instances of the model that are in the session are
    expired, so that nothing stale is read.

    :param session: the session.
    :param model: the mapped class.
    :param rows: mappings of field to value.
    :param by: the fields that say which row is meant; the primary key where not given.
    :returns: how many rows were matched, changed or not.
    :raises InvalidArgument: ``by`` names no field.
    :raises InvalidRow: a row lacks a value for one of these fields, has nothing else, or has
        a value that cannot be stored; it has the row's number.
    :raises Conflict: a row breaks a rule of the database; it has the row's number.
    :raises UnknownField: a field that is no column of the model.
    """
    session = session_of(session)
    mapper = _check_table(model)
    fields = key_fields(by) if by is not None else [one.key for one in primary_key(model)]
    works = []
    for batch in batches(mapper, list(rows), fields, changing=True):
        _check_stored(mapper, batch, [name for name in batch.names if name not in fields])
        store = partial(_change, mapper, fields, batch.names)
        works.append(Work(store, batch.rows, batch.start))
    matched = run(session, mapper, works)
    expire(session, mapper)
    return matched


def _names(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _check_table(model: type[Any]) -> Mapper[Any]:
    mapper = mapper_of(model)
    table_of(model)
    if mapper.version_id_col is not None:
        raise Unsupported(
            f"{model.__name__} counts its versions, which only a flush does; change its "
            "instances instead"
        )
    return mapper


def _checked(mapper: Mapper[Any], rows: Iterable[Row], fields: list[str]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        check_row(mapper, row, number, fields)
        yield row


def _changed(mapper: Mapper[Any], update: list[str]) -> list[sa.Column[Any]]:
    check_fields(mapper.class_, update)
    kept = [field.key for field in primary_key(mapper.class_) if field.key in update]
    if kept:
        raise InvalidArgument(
            f"'update' names {', '.join(map(repr, kept))}, but a row that exists keeps its primary "
            "key, by which it is known elsewhere; leave it out"
        )
    return [column_of(mapper, name) for name in update]


def _check_given(update: list[str], names: list[str]) -> None:
    missing = [name for name in update if name not in names]
    if missing:
        raise InvalidArgument(
            f"'update' names {', '.join(map(repr, missing))}, which not every row gives a value "
            "for; add it to the rows"
        )


def _check_stored(mapper: Mapper[Any], batch: Batch, names: list[str]) -> None:
    for name in names:
        if is_given_by_database(column_of(mapper, name)):
            raise InvalidRow(
                f"row {batch.start}: the field {name!r} of {mapper.class_.__name__} is given by "
                "the database; leave it out",
                row=batch.start,
                field=name,
            )


def _store(
    shape: Shape, rule: Rule, fields: tuple[str, ...], connection: Connection, rows: Sequence[Row]
) -> int:
    return PlainStore(connection, shape, rule).store(fields, rows)


def _store_and_find(
    session: Session,
    model: type[M],
    fields: list[str],
    found: list[M],
    store: Callable[[Connection, Sequence[Row]], int],
    connection: Connection,
    rows: Sequence[Row],
) -> int:
    """Store a row and read its instance, under the same savepoint."""
    matched = store(connection, rows)
    expire(session, mapper_of(model))
    key = {getattr(model, name): rows[0][name] for name in fields}
    found += _found(session, model, [field == value for field, value in key.items()])
    if not found and any(map(is_rounded, key)):
        wanted = [field == as_stored(field, value) for field, value in key.items()]
        found += _found(session, model, wanted)
    if not found:
        values = ", ".join(f"{field.key}={value!r}" for field, value in key.items())
        raise Unsupported(
            f"the {model.__name__} with {values} was stored, but a SELECT does not find it by this "
            "key, which the database has changed, or criteria of this session hide the row; so it "
            "was undone. Give the key as the database stores it, or upsert a list of one row, "
            "which needs no look at it"
        )
    return matched


def _found(session: Session, model: type[M], wanted: list[Any]) -> Sequence[M]:
    return session.scalars(sa.select(model).where(*wanted)).unique().all()


def _change(
    mapper: Mapper[Any],
    fields: list[str],
    names: list[str],
    connection: Connection,
    rows: Sequence[Row],
) -> int:
    table = table_of(mapper.class_)
    prefix = _prefix(table)
    columns = {name: column_of(mapper, name) for name in names}
    keys = {name: columns[name].key for name in names}
    statement = sa.update(table)
    for name in fields:
        keys[name] = prefix + keys[name]
        parameter = sa.bindparam(keys[name], type_=columns[name].type)
        statement = statement.where(columns[name] == parameter)
    kind = kind_of(mapper.class_)
    if kind is not None:
        statement = statement.where(kind)
    changed = [columns[name] for name in names if name not in fields]
    statement = statement.values(
        {one.key: sa.bindparam(one.key, type_=one.type) for one in changed}
    )
    params = [{keys[name]: value for name, value in row.items()} for row in rows]
    return connection.execute(statement, params).rowcount


def _prefix(table: sa.Table) -> str:
    """Return what the names of parameters for the key begin with, and those of no column do."""
    prefix = "by_"
    while any(name.startswith(prefix) for name in table.columns.keys()):  # noqa: SIM118
        prefix = "by_" + prefix
    return prefix
