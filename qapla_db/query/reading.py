"""Reading: one instance, several, how many, whether there are any."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import Session

from qapla_db.errors import InvalidArgument, MultipleFound
from qapla_db.query import pages
from qapla_db.query.fields import mapper_read
from qapla_db.query.filters import FilterBy, OrderBy, conditions, order_clauses
from qapla_db.query.identity import has_limit, page_key
from qapla_db.query.pages import Page
from qapla_db.query.paging import criteria, fetched
from qapla_db.query.targets import AnySession, model_of, nulls_sort_last, select_of, session_of

__all__ = ["check_exists", "count", "find", "find_one", "narrowed"]

M = TypeVar("M")


@overload
def find(
    session: AnySession,
    target: type[M] | sa.Select[M],
    filter_by: FilterBy = None,
    *,
    order_by: OrderBy = None,
    paginate: Literal[True] = True,
    page: int = 1,
    per_page: int = 10,
) -> Page[M]: ...


@overload
def find(
    session: AnySession,
    target: type[M] | sa.Select[M],
    filter_by: FilterBy = None,
    *,
    order_by: OrderBy = None,
    paginate: Literal[False],
    page: int = 1,
    per_page: int = 10,
) -> list[M]: ...


@overload
def find(
    session: AnySession,
    target: sa.Select[*tuple[Any, ...]],
    filter_by: FilterBy = None,
    *,
    order_by: OrderBy = None,
    paginate: Literal[True] = True,
    page: int = 1,
    per_page: int = 10,
) -> Page[Any]: ...


@overload
def find(
    session: AnySession,
    target: sa.Select[*tuple[Any, ...]],
    filter_by: FilterBy = None,
    *,
    order_by: OrderBy = None,
    paginate: Literal[False],
    page: int = 1,
    per_page: int = 10,
) -> list[Any]: ...


def find(
    session: AnySession,
    target: type[M] | sa.Select[*tuple[Any, ...]],
    filter_by: FilterBy = None,
    *,
    order_by: OrderBy = None,
    paginate: bool = True,
    page: int = 1,
    per_page: int = 10,
) -> Page[Any] | list[Any]:
    """Return what answers a filter: a page of it, or a list of all.

    :param session: the session.
    :param target: a mapped class, or a select of one.
    :param filter_by: a mapping of field to value, or an SQL expression.
    :param order_by: fields (``-`` before the descending) or SQL expressions; the
        primary key where nothing is given.
    :param paginate: False gives all of it, as a list.
    :param page: number of the page, from 1.
    :param per_page: how many to a page; lowered to 100, unless you call ``paginate()``
        with ``max_per_page``.
    :raises UnknownField: a field that the model does not have.
    """
    session = session_of(session)
    model: type[Any] = model_of(target)
    statement = narrowed(target, filter_by)
    if order_by is not None:
        nulls_last = nulls_sort_last(session, model)
        statement = statement.order_by(*order_clauses(model, order_by, nulls_sort_last=nulls_last))
    if paginate:
        return pages.paginate(session, statement, page=page, per_page=per_page)
    if not statement._order_by_clauses:
        statement = statement.order_by(*page_key(statement))
    return fetched(session, statement)[0]


@overload
def find_one(
    session: AnySession, target: type[M] | sa.Select[M], filter_by: FilterBy = None
) -> M | None: ...


@overload
def find_one(
    session: AnySession, target: sa.Select[*tuple[Any, ...]], filter_by: FilterBy = None
) -> Any: ...


def find_one(
    session: AnySession, target: type[M] | sa.Select[*tuple[Any, ...]], filter_by: FilterBy = None
) -> Any:
    """Return the one that answers a filter, or None.

    Two rows of equal values are two; an instance that a join repeats is one.

    :param session: the session.
    :param target: a mapped class, or a select of one.
    :param filter_by: a mapping of field to value, or an SQL expression.
    :raises MultipleFound: several do.
    :raises UnknownField: a field that the model does not have.
    """
    session = session_of(session)
    rows = _first_two(session, narrowed(target, filter_by))
    if len(rows) > 1:
        raise MultipleFound(
            f"more than one {model_of(target).__name__} answers the filter {filter_by!r}; "
            "filter by what is unique, or use find()"
        )
    return rows[0] if rows else None


def _first_two(session: Session, statement: sa.Select[Any]) -> list[Any]:
    """Return two of the rows at least, if there are; an instance that a join repeats is one."""
    joined = bool(statement._setup_joins or statement._from_obj)
    # an option may say that the joined rows fill a collection, which a limit would cut
    bounded = not has_limit(statement) and not (joined and statement._with_options)
    rows, are_rows = fetched(session, statement.limit(2) if bounded else statement)
    descriptions = statement.column_descriptions
    if not are_rows or not joined or not _is_entity(descriptions):
        return rows
    if bounded and len(rows) > 1 and rows[0] is rows[1]:
        rows = fetched(session, statement)[0]
    return list({id(row): row for row in rows}.values())


def _is_entity(descriptions: list[Any]) -> bool:
    return len(descriptions) == 1 and descriptions[0]["expr"] is descriptions[0]["entity"]


def check_exists(
    session: AnySession, target: type[Any] | sa.Select[*tuple[Any, ...]], filter_by: FilterBy = None
) -> bool:
    """Tell whether anything answers a filter.

    :param session: the session.
    :param target: a mapped class, or a select of one.
    :param filter_by: a mapping of field to value, or an SQL expression.
    :raises UnknownField: a field that the model does not have.
    """
    session = session_of(session)
    rows = narrowed(target, filter_by)
    statement = sa.select(_unlocked(rows).exists()).options(*criteria(rows))
    statement = statement.execution_options(**_options(rows))
    return bool(session.scalar(statement, bind_arguments=_bind(target)))


def count(
    session: AnySession, target: type[Any] | sa.Select[*tuple[Any, ...]], filter_by: FilterBy = None
) -> int:
    """Return how many rows answer a filter.

    :param session: the session.
    :param target: a mapped class, or a select of one.
    :param filter_by: a mapping of field to value, or an SQL expression.
    :raises UnknownField: a field that the model does not have.
    """
    session = session_of(session)
    bind = _bind(target)
    counted: sa.Select[Any]
    if isinstance(target, sa.Select):
        rows = narrowed(target, filter_by).order_by(None)
        counted = sa.select(sa.func.count()).select_from(_unlocked(rows).subquery())
        counted = counted.options(*criteria(rows)).execution_options(**_options(rows))
    else:
        counted = sa.select(sa.func.count()).select_from(target)
        counted = counted.where(*conditions(target, filter_by))
    return int(session.scalar(counted, bind_arguments=bind) or 0)


def narrowed(
    target: type[Any] | sa.Select[*tuple[Any, ...]], filter_by: FilterBy
) -> sa.Select[Any]:
    """Return the select of a target with a filter added.

    :raises InvalidArgument: the select has a limit, before which the filter would act.
    """
    statement = select_of(target)
    if filter_by is None:
        return statement
    clauses = conditions(model_of(target), filter_by)
    if clauses and has_limit(statement):
        raise InvalidArgument(
            "this select has a LIMIT or OFFSET, and a filter would act before it; put the filter "
            "into the select, or the limit around it"
        )
    return statement.where(*clauses)


def _unlocked(statement: sa.Select[Any]) -> sa.Select[Any]:
    # to count is not to lock
    unlocked = statement._generate()
    unlocked._for_update_arg = None
    return unlocked


def _options(statement: sa.Select[Any]) -> dict[str, Any]:
    # of a single row there are no chunks
    options = statement.get_execution_options()
    return {name: value for name, value in options.items() if name != "yield_per"}


def _bind(target: type[Any] | sa.Select[*tuple[Any, ...]]) -> dict[str, Any]:
    return {"mapper": mapper_read(model_of(target))}
