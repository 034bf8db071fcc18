"""What tells the rows of a select apart, so that an order of them can be made complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Bundle, Load, Mapper, RelationshipProperty
from sqlalchemy.orm.util import AliasedInsp, _ORMJoin
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BooleanClauseList,
    ClauseElement,
    ColumnElement,
    Grouping,
    Label,
    Over,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import and_, asc_op, desc_op, eq, nulls_first_op, nulls_last_op
from sqlalchemy.sql.selectable import Alias, FromClause, FromGrouping, ReturnsRows

__all__ = [
    "completed",
    "eager_collection",
    "entity_of",
    "has_limit",
    "has_one_source",
    "is_grouped",
    "lacks_source",
    "repeated_entity",
    "returns_sets",
    "row_key",
    "without_direction",
]

_DIRECTIONS = frozenset({asc_op, desc_op, nulls_first_op, nulls_last_op})
# fmt: off
_AGGREGATES = frozenset({
    "aggregate_strings", "any_value", "array_agg", "avg", "bit_and", "bit_or", "bit_xor",
    "bool_and", "bool_or", "count", "every", "group_concat", "json_agg", "json_arrayagg",
    "json_group_array", "json_object_agg", "jsonb_agg", "max", "min", "mode",
    "percentile_cont", "percentile_disc", "stddev", "stddev_pop", "stddev_samp",
    "string_agg", "sum", "total", "var_pop", "var_samp", "variance",
})
_SETS = frozenset({
    "generate_series", "generate_subscripts", "json_array_elements", "json_array_elements_text",
    "json_each", "json_each_text", "json_object_keys", "jsonb_array_elements",
    "jsonb_array_elements_text", "jsonb_each", "jsonb_each_text", "jsonb_object_keys",
    "jsonb_path_query", "regexp_matches", "regexp_split_to_table", "string_to_table", "unnest",
})
# fmt: on
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
        or any(map(_aggregates, _expressions(statement)))
    )


def returns_sets(statement: sa.Select[Any]) -> bool:
    """Tell whether a column makes several rows of one, as far as a reader can see it."""
    return any(_calls(one, _SETS) for one in _expressions(statement))


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
    sources = _sources(statement)
    if {one for source in sources for one in source._from_objects} >= {*expression._from_objects}:
        return False
    return len(_sources(statement, expression)) > len(sources)


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
        return list(statement._group_by_clauses)
    expressions = list(_expressions(statement))
    if any(map(_aggregates, expressions)):
        return []
    leading = _distinct_on(statement)
    if statement._distinct and not leading:
        return _unique(part for one in expressions for part in _distinct_parts(one))
    keys = [part for one in expressions for part in _keys(one)]
    if not keys or not has_one_source(statement):
        covered = {source for one in expressions for source in _covered(one)}
        for source in _sources(statement):
            keys += _source_keys(source, covered)
    keys += [_element(one) for one in expressions if _calls(one, _SETS)]
    return _unique([*leading, *keys])


def _sources(statement: sa.Select[Any], *more: ColumnElement[Any]) -> Sequence[FromClause]:
    # without what eager loading joins, which is no part of the rows
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
        element = _element(expression)
        if isinstance(element, ColumnElement):
            yield element


def _keys(expression: Any) -> Iterator[ColumnElement[Any]]:
    entity = _entity(expression)
    if entity is not None:
        yield from _entity_key(entity)
        return
    element = _element(expression)
    if not isinstance(element, ColumnElement):
        return
    for column in _columns(element):
        owner = column._annotations.get("parententity")
        table: Any = column.table
        if owner is not None:
            yield from _entity_key(owner)
        elif _is_table(table) and len(table.primary_key):
            yield from table.primary_key
        else:
            yield element.element if isinstance(element, Label) else element


def _covered(expression: Any) -> Iterator[Any]:
    # the sources whose keys are those that _keys() gives for an expression
    entity = _entity(expression)
    if entity is not None:
        yield from entity.selectable._from_objects
        return
    element = _element(expression)
    for column in _columns(element) if isinstance(element, ColumnElement) else ():
        owner = column._annotations.get("parententity")
        if owner is not None:
            yield from owner.selectable._from_objects
        elif _is_table(column.table):
            yield column.table


def _source_keys(source: Any, covered: set[Any]) -> Iterator[ColumnElement[Any]]:
    if source in covered:
        return
    owner = source._annotations.get("parententity")
    if owner is not None and not isinstance(source, _ORMJoin):  # whose owner is its left side
        yield from _entity_key(owner)
    elif isinstance(source, sa.Join):
        yield from _source_keys(source.left, covered)
        if source.full or not _is_looked_up(source.right, source.onclause):
            yield from _source_keys(source.right, covered)
    elif isinstance(source, FromGrouping):
        yield from _source_keys(source.element, covered)
    elif _is_table(source) and len(source.primary_key):
        yield from source.primary_key
    elif isinstance(source, FromClause):
        yield from (column for column in source.c if isinstance(column.type, _SORTABLE))


def _is_looked_up(source: Any, condition: Any) -> bool:
    """Tell whether a join adds one row at most, as it compares the whole primary key."""
    if not _is_table(source) or not len(source.primary_key):
        return False
    compared: list[Any] = []
    for one in _conjuncts(condition):
        if isinstance(one, BinaryExpression) and one.operator is eq:
            for side, other in ((one.left, one.right), (one.right, one.left)):
                if source not in other._from_objects:
                    compared.append(side)
    return all(any(side.compare(key) for side in compared) for key in source.primary_key)


def _conjuncts(condition: Any) -> Iterator[Any]:
    if isinstance(condition, Grouping):
        condition = condition.element
    if isinstance(condition, BooleanClauseList) and condition.operator is and_:
        for one in condition.clauses:
            yield from _conjuncts(one)
    else:
        yield condition


def _columns(element: ClauseElement) -> Iterator[sa.ColumnClause[Any]]:
    if isinstance(element, sa.ColumnClause):
        yield element
    elif not _is_query(element):
        for child in element.get_children():
            yield from _columns(child)


def _aggregates(expression: Any) -> bool:
    return _calls(expression, _AGGREGATES)


def _calls(expression: Any, names: frozenset[str]) -> bool:
    element = _element(expression)
    if isinstance(element, FunctionElement) and _name(element) in names:
        return True
    if not isinstance(element, ClauseElement) or isinstance(element, Over) or _is_query(element):
        return False
    return any(_calls(child, names) for child in element.get_children())


def _is_query(element: ClauseElement) -> bool:
    # what is inside has tables of its own; a function only looks as if
    return isinstance(element, ReturnsRows) and not isinstance(element, FunctionElement)


def _name(function: FunctionElement[Any]) -> str:
    return str(getattr(function, "name", "")).lower()


def _element(expression: Any) -> Any:
    return (
        expression.__clause_element__() if hasattr(expression, "__clause_element__") else expression
    )


def _entity(expression: Any) -> Mapper[Any] | AliasedInsp[Any] | None:
    inspected = sa.inspect(expression, raiseerr=False)
    return inspected if isinstance(inspected, Mapper | AliasedInsp) else None


def _entity_key(entity: Mapper[Any] | AliasedInsp[Any]) -> Iterator[ColumnElement[Any]]:
    mapper = entity.mapper
    for column in mapper.primary_key:
        attribute = getattr(entity.entity, mapper.get_property_by_column(column).key)
        yield attribute.__clause_element__()


def _is_table(selectable: Any) -> bool:
    if isinstance(selectable, Alias):
        selectable = selectable.element
    return isinstance(selectable, sa.Table)


def _unique(parts: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = []
    for part in parts:
        if not any(one.compare(part) for one in found):
            found.append(part)
    return found
