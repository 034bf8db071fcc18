"""What tells the rows of a select apart, so that an order of them can be made complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Bundle, Load, Mapper, RelationshipProperty
from sqlalchemy.orm.util import AliasedInsp, _ORMJoin
from sqlalchemy.sql.elements import (
    ClauseList,
    ColumnElement,
    Grouping,
    Label,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import asc_op, desc_op, nulls_first_op, nulls_last_op
from sqlalchemy.sql.selectable import FromClause, FromGrouping

from qapla_db.query.calls import (
    aggregates,
    element_of,
    has_window,
    inner_columns,
    may_aggregate,
    name_of,
    returns_set,
)
from qapla_db.query.joins import is_looked_up, is_table

__all__ = [
    "completed",
    "eager_collection",
    "entity_of",
    "has_limit",
    "has_one_source",
    "has_windows",
    "is_grouped",
    "lacks_source",
    "page_key",
    "repeated_entity",
    "returns_sets",
    "row_key",
    "sources_of",
    "without_direction",
]

_DIRECTIONS = frozenset({asc_op, desc_op, nulls_first_op, nulls_last_op})
_GROUPING_SETS = frozenset({"cube", "grouping_sets", "rollup"})
_SORTABLE = (sa.Boolean, sa.Date, sa.DateTime, sa.Integer, sa.Numeric, sa.String, sa.Time, sa.Uuid)


def completed(
    order: Iterable[ColumnElement[Any]], key: Iterable[ColumnElement[Any]]
) -> list[ColumnElement[Any]]:
    """Return an order with the parts of a key added that it does not have yet."""
    clauses = list(order)
    known = [without_direction(clause) for clause in clauses]
    clauses += [part for part in key if not any(one.compare(part) for one in known)]
    return clauses


def without_direction(clause: Any) -> Any:
    """Return what is ordered by, without ASC, DESC, NULLS FIRST, NULLS LAST."""
    while isinstance(clause, UnaryExpression) and clause.modifier in _DIRECTIONS:
        clause = clause.element
    return clause


def has_limit(statement: sa.Select[Any]) -> bool:
    """Tell whether a select has a LIMIT, OFFSET or FETCH of its own."""
    parts = (statement._limit_clause, statement._offset_clause, statement._fetch_clause)
    return any(part is not None for part in parts)


def is_grouped(statement: sa.Select[Any]) -> bool:
    """Tell whether the rows of a select are others than those of its tables."""
    return bool(
        statement._group_by_clauses
        or statement._distinct
        or _distinct_on(statement)
        or any(map(aggregates, _expressions(statement)))
    )


def returns_sets(statement: sa.Select[Any]) -> bool:
    """Tell whether a column makes several rows of one, as far as a reader can see it."""
    return any(map(returns_set, _expressions(statement)))


def has_windows(statement: sa.Select[Any]) -> bool:
    """Tell whether a column depends on which rows a condition leaves, also one of a model."""
    for option in statement._with_options:
        for element in option.context if isinstance(option, Load) else ():
            if any(map(has_window, getattr(element, "_extra_criteria", ()))):  # with_expression()
                return True
    return any(map(has_window, _loaded(statement)))


def _loaded(statement: sa.Select[Any]) -> Iterator[Any]:
    for one in _expressions(statement):
        entity = _entity(one)
        if entity is None:
            yield one
            continue
        for mapper in {entity.mapper, *entity.with_polymorphic_mappers}:
            for attribute in mapper.column_attrs:
                if not isinstance(attribute.columns[0], sa.Column):  # column_property()
                    yield attribute.columns[0]


def eager_collection(statement: sa.Select[Any]) -> RelationshipProperty[Any] | None:
    """Return the collection that ``contains_eager()`` fills from the rows of a select, or None."""
    for option in statement._with_options:
        for element in option.context if isinstance(option, Load) else ():
            if "eager_from_alias" not in element.local_opts:
                continue
            steps = [one for one in element.path.path if isinstance(one, RelationshipProperty)]
            if steps and steps[-1].uselist:
                return steps[-1]
    return None


def has_one_source(statement: sa.Select[Any]) -> bool:
    """Tell whether all rows are those of what the columns are taken from, without a join."""
    if statement._setup_joins or statement._from_obj:
        return False
    own = {source for one in _expressions(statement) for source in _covered(one)}
    return all(one in own for clause in statement._where_criteria for one in clause._from_objects)


def entity_of(statement: sa.Select[Any]) -> Mapper[Any] | None:
    """Return the mapper of the first mapped class of a select, None where there is none."""
    for description in statement.column_descriptions:
        inspected = sa.inspect(description.get("entity"), raiseerr=False)
        if isinstance(inspected, Mapper | AliasedInsp):
            return inspected.mapper
    return None


def lacks_source(statement: sa.Select[Any], expression: ColumnElement[Any]) -> bool:
    """Tell whether to add a column to a select adds a table that nothing joins it with."""
    own = {source for one in _expressions(statement) for source in _covered(one)}
    if own.issuperset(expression._from_objects):
        return False
    sources = sources_of(statement)
    if {one for source in sources for one in source._from_objects} >= {*expression._from_objects}:
        return False
    return len(sources_of(statement, expression)) > len(sources)


def repeated_entity(statement: sa.Select[Any]) -> str | None:
    """Return the name of a mapped class where a join may make equal rows of a select, or None."""
    expressions = list(_expressions(statement))
    own = [part for one in expressions for part in _distinct_parts(one)]
    mapper = entity_of(statement)
    if mapper is None or len(completed(own, row_key(statement))) == len(own):
        return None
    return mapper.class_.__name__


def row_key(statement: sa.Select[Any]) -> list[ColumnElement[Any]]:
    """Return what the rows of a select differ in, as far as a reader can see it.

    The primary keys of whatever the columns are taken from, and of what it is
    joined with, where a join may repeat a row. Where the rows are grouped or made
    distinct there are no primary keys to order by, but what they are grouped by or
    consist of. Nothing for a single row of aggregates.
    """
    if statement._group_by_clauses:
        return _group_key(statement._group_by_clauses)
    expressions = list(_expressions(statement))
    if any(map(aggregates, expressions)):
        return []
    leading = _distinct_on(statement)
    if statement._distinct and not leading:
        return _unique(part for one in expressions for part in _distinct_parts(one))
    keys = [part for one in expressions for part in _keys(one)]
    if not keys or not has_one_source(statement):
        covered = {source for one in expressions for source in _covered(one)}
        for source in sources_of(statement):
            keys += _source_keys(source, covered)
    keys += [element_of(one) for one in expressions if returns_set(one)]
    return _unique([*leading, *keys])


def page_key(statement: sa.Select[Any]) -> list[ColumnElement[Any]]:
    """Return what completes the order of a select, valid also where it may be a single row.

    Where a function that nobody knows may be an aggregate the columns themselves are in
    order, as text: of rows that differ in none of them it does not matter which comes first.
    """
    expressions = list(_expressions(statement))
    if (
        statement._group_by_clauses
        or statement._distinct
        or _distinct_on(statement)
        or any(_entity(one) is not None for one in expressions)
        or any(map(aggregates, expressions))
        or not may_aggregate(expressions)
    ):
        return row_key(statement)
    parts = (part for one in expressions for part in _distinct_parts(one))
    return [sa.cast(_unlabelled(part), sa.String) for part in parts]


def _group_key(clauses: Iterable[Any]) -> list[ColumnElement[Any]]:
    plain: list[ColumnElement[Any]] = []
    several: list[ColumnElement[Any]] = []
    for one in clauses:
        parts = list(_grouped_by(one))
        plain += parts
        if any(map(_is_grouping_set, _flat(one))):
            several += parts
    if several:  # of a null tell whether it is a value, or stands for a total
        plain.append(sa.func.grouping(*_unique(several)))
    return _unique(plain)


def _grouped_by(clause: Any) -> Iterator[ColumnElement[Any]]:
    for one in _flat(clause):
        if _is_grouping_set(one):
            for part in one.clauses:
                yield from _grouped_by(part)
        else:
            yield one


def _flat(clause: Any) -> Iterator[Any]:
    # group_by() puts a function into a list, as a label
    if isinstance(clause, Grouping):
        clause = clause.element
    if isinstance(clause, ClauseList):
        for one in clause.clauses:
            yield from _flat(one)
    elif isinstance(clause, Label) and _is_grouping_set(clause.element):
        yield clause.element
    else:
        yield clause


def _is_grouping_set(element: Any) -> bool:
    return isinstance(element, FunctionElement) and name_of(element) in _GROUPING_SETS


def _unlabelled(element: Any) -> Any:
    return element.element if isinstance(element, Label) else element


def sources_of(statement: sa.Select[Any], *more: ColumnElement[Any]) -> Sequence[FromClause]:
    """Return what stands in FROM, without what eager loading joins, which is no part of the rows.

    :param more: columns that are to be added to the select.
    """
    bare = statement.with_only_columns(sa.literal(1), *more, maintain_column_froms=True)
    bare._with_options = ()
    return bare.get_final_froms()


def _distinct_on(statement: sa.Select[Any]) -> tuple[ColumnElement[Any], ...]:
    # PostgreSQL wants to order by them first; SQLAlchemy 2.1 has an extension for it
    extension = getattr(statement, "_pre_columns_clause", None)
    return (*statement._distinct_on, *getattr(extension, "_distinct_on", ()))


def _expressions(statement: sa.Select[Any]) -> Iterator[Any]:
    pending = [description["expr"] for description in statement.column_descriptions]
    for one in pending:
        if isinstance(one, Bundle):
            yield from one.exprs
        else:
            yield one


def _distinct_parts(expression: Any) -> Iterator[ColumnElement[Any]]:
    # what a distinct select is ordered by must be selected
    entity = _entity(expression)
    if entity is not None:
        yield from _entity_key(entity)
    else:
        element = element_of(expression)
        if isinstance(element, ColumnElement):
            yield element


def _keys(expression: Any) -> Iterator[ColumnElement[Any]]:
    entity = _entity(expression)
    if entity is not None:
        yield from _entity_key(entity)
        return
    element = element_of(expression)
    if not isinstance(element, ColumnElement):
        return
    for column in inner_columns(element):
        owner = column._annotations.get("parententity")
        table: Any = column.table
        if owner is not None:
            yield from _entity_key(owner)
        elif is_table(table) and len(table.primary_key):
            yield from table.primary_key
        else:
            yield _unlabelled(element)


def _covered(expression: Any) -> Iterator[Any]:
    # the sources whose keys are those that _keys() gives for an expression
    entity = _entity(expression)
    if entity is not None:
        yield from entity.selectable._from_objects
        return
    element = element_of(expression)
    for column in inner_columns(element) if isinstance(element, ColumnElement) else ():
        owner = column._annotations.get("parententity")
        if owner is not None:
            yield from owner.selectable._from_objects
        elif is_table(column.table):
            yield column.table


def _source_keys(source: Any, covered: set[Any]) -> Iterator[ColumnElement[Any]]:
    if source in covered:
        return
    owner = source._annotations.get("parententity")
    if owner is not None and not isinstance(source, _ORMJoin):  # whose owner is its left side
        yield from _entity_key(owner)
    elif isinstance(source, sa.Join):
        yield from _source_keys(source.left, covered)
        if source.full or not is_looked_up(source.right, source.onclause):
            yield from _source_keys(source.right, covered)
    elif isinstance(source, FromGrouping):
        yield from _source_keys(source.element, covered)
    elif is_table(source) and len(source.primary_key):
        yield from source.primary_key
    elif isinstance(source, FromClause):
        yield from (column for column in source.c if isinstance(column.type, _SORTABLE))


def _entity(expression: Any) -> Mapper[Any] | AliasedInsp[Any] | None:
    inspected = sa.inspect(expression, raiseerr=False)
    return inspected if isinstance(inspected, Mapper | AliasedInsp) else None


def _entity_key(entity: Mapper[Any] | AliasedInsp[Any]) -> Iterator[ColumnElement[Any]]:
    mapper = entity.mapper
    for column in mapper.primary_key:
        attribute = getattr(entity.entity, mapper.get_property_by_column(column).key)
        yield attribute.__clause_element__()


def _unique(parts: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = []
    for part in parts:
        if not any(one.compare(part) for one in found):
            found.append(part)
    return found
