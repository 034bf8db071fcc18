"""Get a row or create it, once, whoever else does the same at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from qapla_db.errors import InvalidArgument, Misuse, MultipleFound
from qapla_db.query.comparing import comparable
from qapla_db.query.fields import as_stored, check_arguments, is_rounded, mapper_of
from qapla_db.query.filters import conditions
from qapla_db.query.targets import AnySession, backend_of, bind_of, session_of

__all__ = ["get_or_create"]

M = TypeVar("M")

_ATTEMPTS = 3
"""How often a row may disappear between the moment it is in the way and the look at it."""

_BY = "by_"

_DUPLICATES = frozenset({"23505", "23P01"})
"""What PostgreSQL calls a key, or an exclusion, that another row has."""


def get_or_create(
    session: AnySession, model: type[M], /, filter_by: Mapping[str, Any] | None, **defaults: Any
) -> tuple[M, bool]:
    """Return the instance that has these values, and whether it had to be created.

    Nothing is committed, and nothing but what is tried here is ever rolled
    back: it runs under a savepoint. An existing row costs one statement, a
    missing one two, a lost race a third.

    Where ``filter_by`` covers a unique key there is one row in the end, however
    many callers there are. Without one, on SQLite there is one too, since one
    transaction writes at a time. PostgreSQL and MariaDB let two transactions
    that overlap insert one row each, and the next call raises MultipleFound:
    declare the key unique, or make the callers wait for each other.

    Under REPEATABLE READ and SERIALIZABLE PostgreSQL cannot show the row of who
    won a race; then its own error 40001 says that the transaction has to be run
    again.

    A key that the model or the database stores otherwise, such as a number that is
    rounded or a text that a validator converts, is found by what is stored, once a
    unique key has refused it; that costs the statements of a lost race and one more.

    :param session: the session.
    :param model: the mapped class; its constructor makes the instance.
    :param filter_by: a mapping of field to value, None meaning NULL. An SQL
        expression is refused: nothing can be created from it.
    :param defaults: what a new instance gets beside the values of ``filter_by``. A field of
        the name ``filter_by`` can only stand in ``filter_by``, or be set on the instance.
    :returns: the instance, flushed, and True when it is new.
    :raises MultipleFound: several rows have these values.
    :raises UnknownField: a field that the model does not have.
    :raises InvalidArgument: a field that would be stored nowhere, several values for one, or one
        of another type than its column's.
    :raises sqlalchemy.exc.IntegrityError: the new row breaks a rule, and not because
        of a race; the session can go on.
    """
    session = session_of(session)
    values = _values(model, filter_by, defaults)
    assert filter_by is not None
    statement, parameters = _look_up(model, filter_by)
    # an error of the server's ends a transaction of PostgreSQL, which a savepoint prevents
    with nullcontext() if _fits(model, filter_by) else session.begin_nested():
        found = _one(session, model, statement, parameters)
    if found is not None:
        return found, False
    made: M | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        # flushes what the caller has changed, outside of the savepoint
        savepoint = session.begin_nested()
        try:
            with savepoint:
                made = model(**values)
                session.add(made)
                session.flush()
                return made, True
        except sa.exc.IntegrityError as error:
            found = _one(session, model, _current(session, model, statement), parameters)
            stored = None if found is not None else _look_up_stored(model, filter_by, made)
            if stored is not None:
                found = _one(session, model, _current(session, model, stored), {})
            if found is not None:
                return found, False
            if attempt == _ATTEMPTS or not _is_gone(session, model, error):
                raise
    raise AssertionError("unreachable")


def _values(
    model: type[Any], filter_by: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    if not isinstance(filter_by, Mapping) or not filter_by:
        raise Misuse(
            f"get_or_create of {model.__name__} takes filter_by as a mapping of field to value, "
            f"not {filter_by!r}: nothing can be created from anything else. Look an SQL "
            "expression up with find_one(), and create with add()"
        )
    for name, value in filter_by.items():
        if isinstance(value, list | tuple | set | frozenset | range):
            raise InvalidArgument(
                f"filter_by of get_or_create has several values for {model.__name__}.{name}; "
                "one row has one, so give one"
            )
        if name in defaults and defaults[name] != value:
            raise InvalidArgument(
                f"get_or_create has two values for {model.__name__}.{name}: {value!r} in "
                f"filter_by and {defaults[name]!r} as a default; give one"
            )
    values = {**defaults, **filter_by}
    check_arguments(model, values)
    return values


def _look_up(model: type[M], filter_by: Mapping[str, Any]) -> tuple[sa.Select[M], dict[str, Any]]:
    columns = mapper_of(model).column_attrs
    for name, value in filter_by.items():
        if name not in columns or _is_sql(value):
            return sa.select(model).where(*conditions(model, filter_by)).limit(2), {}
    parts = tuple((name, value is None) for name, value in filter_by.items())
    parameters = {
        _BY + name: comparable(getattr(model, name), (value,))[0]
        for name, value in filter_by.items()
        if value is not None
    }
    prepared: Any = _prepared
    return prepared(model, parts), parameters


def _look_up_stored(
    model: type[M], filter_by: Mapping[str, Any], made: M | None
) -> sa.Select[M] | None:
    """Return what looks for a row by the values that the model, and the database, make of these.

    :returns: None where they make nothing else of them.
    """
    columns = mapper_of(model).column_attrs
    wanted: list[Any] = []
    is_other = False
    for name, value in filter_by.items():
        own = value if made is None else sa.inspect(made, raiseerr=True).dict.get(name, value)
        if name not in columns or own is None or _is_sql(own):
            wanted += conditions(model, {name: value})
            continue
        field = getattr(model, name)
        is_other = is_other or own != value or is_rounded(field)
        wanted.append(field == as_stored(field, own))
    return sa.select(model).where(*wanted).limit(2) if is_other else None


def _fits(model: type[Any], filter_by: Mapping[str, Any]) -> bool:
    """Tell whether numbers are within what their columns hold."""
    columns: Any = mapper_of(model).column_attrs
    return all(
        _is_within(columns[name].expression.type, value)
        for name, value in filter_by.items()
        if name in columns and isinstance(value, int | float | Decimal)
    )


def _is_within(kind: Any, value: Any) -> bool:
    if isinstance(kind, sa.Integer):
        bits = {sa.SmallInteger: 15, sa.BigInteger: 63}
        most = 2 ** next((bits[of] for of in bits if isinstance(kind, of)), 31) - 1
    elif isinstance(kind, sa.Numeric) and kind.precision is not None:
        most = 10 ** (kind.precision - (kind.scale or 0)) - 1
    else:
        return True
    return bool(value == value and abs(value) <= most)


def _is_sql(value: Any) -> bool:
    return isinstance(value, sa.ClauseElement) or hasattr(value, "__clause_element__")


@lru_cache(maxsize=512)
def _prepared(model: Any, parts: tuple[tuple[str, bool], ...]) -> sa.Select[Any]:
    # to build a select costs a fifth of running it
    values: dict[str, Any] = {
        name: None if is_null else sa.bindparam(_BY + name) for name, is_null in parts
    }
    return sa.select(model).where(*conditions(model, values)).limit(2)


def _one(
    session: Session, model: type[M], statement: sa.Select[M], parameters: dict[str, Any]
) -> M | None:
    rows = session.scalars(statement, parameters).unique().all()
    if len(rows) > 1:
        raise MultipleFound(
            f"more than one {model.__name__} has these values, and get_or_create can only mean "
            "one; name in filter_by what is unique"
        )
    return rows[0] if rows else None


def _current(session: Session, model: type[M], statement: sa.Select[M]) -> sa.Select[M]:
    if bind_of(session, model).dialect.name in ("mysql", "mariadb"):
        # a plain select reads the snapshot, in which the row is not; FOR UPDATE deadlocks
        return statement.with_for_update(read=True)
    return statement


def _is_gone(session: Session, model: type[Any], error: sa.exc.IntegrityError) -> bool:
    """Tell whether the row that was in the way has disappeared, or may be created now.

    On PostgreSQL only: the statement is put again, so that it does nothing
    where a row that this transaction sees is in the way, and is answered with
    the error 40001 by the server where one is that it cannot see.
    """
    if bind_of(session, model).dialect.name != "postgresql" or error.statement is None:
        return False
    if error.orig is None or backend_of(session, model).error_code(error.orig) not in _DUPLICATES:
        return False
    if not _is_insert(session, model, error.statement):
        return False
    insert = error.statement.rpartition(" RETURNING ")[0] or error.statement
    savepoint = session.begin_nested()
    try:
        connection = session.connection(bind_arguments={"mapper": model})
        done = connection.exec_driver_sql(f"{insert} ON CONFLICT DO NOTHING", error.params)
        return done.rowcount > 0
    finally:
        if savepoint.is_active:
            savepoint.rollback()


def _is_insert(session: Session, model: type[Any], statement: str) -> bool:
    """Tell whether a statement is an INSERT into a table of a model, not one of a listener's."""
    name_of = bind_of(session, model).dialect.identifier_preparer.format_table
    names = [name_of(table, use_schema=False) for table in mapper_of(model).tables]
    into, _, rest = statement.partition(" (")
    return (
        into.startswith("INSERT INTO ")
        and into.removeprefix("INSERT INTO ").rpartition(".")[2] in names
        and " ON CONFLICT " not in rest
    )
