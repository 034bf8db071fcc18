"""What the functions in the columns of a select make of its rows, as far as a reader can see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.sql import elements
from sqlalchemy.sql.elements import (
    ClauseElement,
    FunctionFilter,
    Over,
    TextClause,
    UnaryExpression,
    WithinGroup,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import distinct_op
from sqlalchemy.sql.selectable import ReturnsRows

__all__ = [
    "aggregates",
    "element_of",
    "has_window",
    "inner_columns",
    "is_query",
    "may_aggregate",
    "name_of",
    "returns_set",
]

# fmt: off
_AGGREGATES = frozenset({
    "aggregate_strings", "any_value", "approx_count_distinct", "array_agg", "avg", "bit_and",
    "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop", "covar_samp", "every",
    "group_concat", "json_agg", "json_agg_strict", "json_arrayagg", "json_group_array",
    "json_group_object", "json_object_agg", "json_object_agg_strict", "json_object_agg_unique",
    "json_object_agg_unique_strict", "json_objectagg", "jsonb_agg", "jsonb_agg_strict",
    "jsonb_group_array", "jsonb_group_object", "jsonb_object_agg", "jsonb_object_agg_strict",
    "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "max", "median", "min", "mode",
    "percentile", "percentile_cont", "percentile_disc", "range_agg", "range_intersect_agg",
    "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx",
    "regr_sxy", "regr_syy", "std", "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum",
    "total", "var_pop", "var_samp", "variance", "xmlagg",
})
_SETS = frozenset({
    "generate_series", "generate_subscripts", "json_array_elements", "json_array_elements_text",
    "json_each", "json_each_text", "json_object_keys", "jsonb_array_elements",
    "jsonb_array_elements_text", "jsonb_each", "jsonb_each_text", "jsonb_object_keys",
    "jsonb_path_query", "regexp_matches", "regexp_split_to_table", "string_to_table", "unnest",
})
_SCALARS = frozenset({
    "abs", "cast", "ceil", "ceiling", "char_length", "coalesce", "concat", "concat_ws",
    "current_date", "current_time", "current_timestamp", "date", "date_format", "date_part",
    "date_trunc", "exp", "extract", "floor", "format", "greatest", "if", "ifnull", "iif",
    "initcap", "instr", "json_array_length", "json_build_array", "json_build_object",
    "json_extract", "json_unquote", "json_value", "jsonb_array_length", "jsonb_build_array",
    "jsonb_build_object", "jsonb_extract_path_text", "least", "left", "length", "ln", "localtime",
    "localtimestamp", "lower", "lpad", "ltrim", "md5", "mod", "month", "now", "nullif",
    "octet_length", "position", "pow", "power", "random", "regexp_replace", "repeat", "replace",
    "reverse", "right", "round", "row_to_json", "rpad", "rtrim", "sign", "soundex", "split_part",
    "sqrt", "strftime", "strpos", "substr", "substring", "time", "to_char", "to_date", "to_json",
    "to_jsonb", "to_number", "to_timestamp", "trim", "trunc", "typeof", "unaccent", "upper",
    "year",
})
# fmt: on
_WINDOW = re.compile(r"\bover\s*[(\w]", re.IGNORECASE)
_AROUND_AGGREGATES: tuple[type[Any], ...] = (WithinGroup, FunctionFilter, aggregate_order_by)
if hasattr(elements, "AggregateOrderBy"):  # SQLAlchemy 2.1
    _AROUND_AGGREGATES += (elements.AggregateOrderBy,)


def aggregates(expression: Any) -> bool:
    """Tell whether an expression surely makes one row of many."""
    return any(map(_is_aggregate, _walk(expression)))


def returns_set(expression: Any) -> bool:
    """Tell whether a column makes several rows of one."""
    return any(
        isinstance(one, FunctionElement) and name_of(one) in _SETS for one in _walk(expression)
    )


def has_window(expression: Any) -> bool:
    """Tell whether an expression depends on other rows of the select: a window function."""
    return any(map(_is_window, _walk(expression)))


def may_aggregate(expressions: Iterable[Any]) -> bool:
    """Tell whether a select of no groups may have a single row, for all that is known.

    Then all its columns are arguments of functions, one of which nobody knows.

    :param expressions: elements of the columns of the select; no mapped classes.
    """
    unknown = False
    for one in expressions:
        for inside in _walk(one, into=_is_known):
            if isinstance(inside, sa.ColumnClause):
                return False
            unknown = unknown or not _is_known(inside)
    return unknown


def inner_columns(element: ClauseElement) -> Iterator[sa.ColumnClause[Any]]:
    """Yield the columns in an expression, without those of its subqueries."""
    for one in _walk(element):
        if isinstance(one, sa.ColumnClause):
            yield one


def is_query(element: ClauseElement) -> bool:
    """Tell whether an element is a query, which has tables of its own."""
    # a function only looks as if
    return isinstance(element, ReturnsRows) and not isinstance(element, FunctionElement)


def element_of(expression: Any) -> Any:
    """Return the clause that an attribute of a model stands for."""
    found = getattr(expression, "__clause_element__", None)
    return expression if found is None else found()


def name_of(function: FunctionElement[Any]) -> str:
    """Return the name of a function, in lower case."""
    return str(getattr(function, "name", "")).lower()


def _is_known(element: Any) -> bool:
    return not isinstance(element, FunctionElement) or name_of(element) in _SCALARS | _SETS


def _is_aggregate(element: Any) -> bool:
    if isinstance(element, _AROUND_AGGREGATES):
        return True
    if isinstance(element, UnaryExpression):
        return element.operator is distinct_op
    return isinstance(element, FunctionElement) and name_of(element) in _AGGREGATES


def _is_window(element: Any) -> bool:
    if isinstance(element, TextClause):
        return _WINDOW.search(element.text) is not None
    if isinstance(element, sa.ColumnClause) and element.is_literal:
        return _WINDOW.search(element.name) is not None
    return isinstance(element, Over)


def _walk(expression: Any, into: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """Yield an expression and what is in it, without the inside of queries.

    A function with a window is no aggregate, but its arguments may be.
    """
    element = element_of(expression)
    if not isinstance(element, ClauseElement):
        return
    yield element
    if is_query(element) or isinstance(element, sa.ColumnClause):
        return
    if into is not None and not into(element):
        return
    for child in element.get_children():
        if isinstance(element, Over) and child is element.element:
            for argument in _called(child).get_children():
                yield from _walk(argument, into)
        else:
            yield from _walk(child, into)


def _called(element: Any) -> Any:
    while isinstance(element, _AROUND_AGGREGATES):
        element = element.func if isinstance(element, FunctionFilter) else element.element
    return element
