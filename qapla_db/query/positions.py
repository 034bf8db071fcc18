"""Orders, and the conditions of what comes after a position in one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper, QueryableAttribute, Session
from sqlalchemy.sql.annotation import _deep_deannotate
from sqlalchemy.sql.elements import ColumnElement, Tuple, UnaryExpression
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.operators import desc_op, nulls_first_op, nulls_last_op

from qapla_db.errors import InvalidArgument
from qapla_db.query.calls import aggregates, has_window, inner_columns
from qapla_db.query.fields import mapper_read
from qapla_db.query.filters import OrderBy, order_clauses
from qapla_db.query.identity import (
    completed,
    has_one_source,
    lacks_source,
    row_key,
    sources_of,
    without_direction,
)
from qapla_db.query.joins import filled_tables, is_never_null
from qapla_db.query.targets import bind_of, model_of, nulls_sort_last
from qapla_db.query.tokens import Kind, Position, kind_of

__all__ = ["Order", "Part", "order_of"]

Condition = ColumnElement[bool]

_TEXT_FUNCTIONS = frozenset(
    {"initcap", "left", "lower", "ltrim", "replace", "reverse", "right", "rtrim", "substr"}
    | {"substring", "trim", "unaccent", "upper"}
)
_LENGTH_FUNCTIONS = frozenset({"char_length", "length", "octet_length"})
_MYSQL = frozenset({"mysql", "mariadb"})

_MOST = 100
"""How many orders of a model are kept."""


@dataclass(frozen=True)
class Part:
    """One part of an order."""

    expression: ColumnElement[Any]
    operand: ColumnElement[Any]  # of the type that its values are bound with
    bound: ColumnElement[Any]  # the value of the position
    descending: bool
    nulls_last: bool
    nullable: bool
    default_nulls_last: bool  # ascending, where nothing is said
    dialect: str
    kind: Kind

    def reversed(self) -> Part:
        """Return the same part the other way round."""
        return replace(self, descending=not self.descending, nulls_last=not self.nulls_last)

    @property
    def skips_nulls(self) -> bool:
        """Whether a comparison with a value gives all that comes after it."""
        return not (self.nullable and self.nulls_last)

    def clauses(self) -> list[ColumnElement[Any]]:
        """Return what stands in ORDER BY."""
        clause = self.expression.desc() if self.descending else self.expression.asc()
        if not self.nullable or self.nulls_last == (self.default_nulls_last != self.descending):
            return [clause]
        if self.dialect in _MYSQL:  # has no words for it
            null = self.expression.is_(None)
            return [null.asc() if self.nulls_last else null.desc(), clause]
        return [clause.nulls_last() if self.nulls_last else clause.nulls_first()]

    def column(self) -> ColumnElement[Any]:
        """Return what the value of a position is read from."""
        return sa.cast(self.expression, self.kind.type) if self.kind.cast else self.operand

    def same(self, given: bool) -> Condition:
        """Return the condition that a row has the value of the position."""
        return self.operand == self.bound if given else self.expression.is_(None)

    def after(self, given: bool) -> Condition:
        """Return the condition that a row comes after the value, by this part alone."""
        if not given:
            return sa.false() if self.nulls_last else self.expression.is_not(None)
        beyond = _beyond(self.operand, self.bound, self.descending, False)
        return beyond if self.skips_nulls else sa.or_(beyond, self.expression.is_(None))


class Direction:
    """An order, as it is read one way."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.clauses = [clause for part in parts for clause in part.clauses()]
        self._conditions: dict[Any, list[Condition]] = {}

    def conditions(self, start: Position) -> list[Condition]:
        """Return conditions whose rows follow each other, each within one range of an index.

        One is enough on nearly all pages; the next is asked for only where rows are missing.
        """
        given = tuple(value is not None for value in start.values)
        key = given, start.inclusive, start.tied
        if key not in self._conditions:
            self._conditions[key] = _segments(self.parts, given, start.inclusive, start.tied)
        return self._conditions[key]

    def is_tied(self, rows: Sequence[Sequence[Any]]) -> bool:
        """Tell whether many rows are the same in the part that an index is entered by."""
        # the range optimizer of MariaDB and MySQL needs no help
        if len(rows) < 2 or self.parts[0].dialect in _MYSQL:
            return False
        length = _prefix(self.parts, [value is not None for value in rows[0]])
        return 0 < length < len(self.parts) and rows[0][:length] == rows[-1][:length]


class Order:
    """A complete order of the rows of a select.

    :ivar kinds: how the values of a position are kept in a token.
    :ivar fingerprint: what tells it from other orders, in this process and the next.
    """

    def __init__(self, model: type[Any], parts: Sequence[Part], dialect: Dialect) -> None:
        self.forwards = Direction(parts)
        self.columns = [
            part.column().label(f"position_{number}") for number, part in enumerate(parts)
        ]
        self.kinds = [part.kind for part in parts]
        self.fingerprint = _fingerprint(model, parts, dialect)

    @cached_property
    def backwards(self) -> Direction:
        """The order the other way round."""
        return Direction([part.reversed() for part in self.forwards.parts])

    @staticmethod
    def parameters(position: Position) -> dict[str, Any]:
        """Return the parameters that the conditions of a position need."""
        return {_parameter(number): value for number, value in enumerate(position.values)}


def order_of(session: Session, statement: sa.Select[Any], order_by: OrderBy) -> Order:
    """Return the order of a select, completed by the primary keys of what is selected.

    :raises UnknownField: the model has no such field.
    :raises InvalidArgument: it cannot be ordered by what was given.
    """
    model: type[Any] = model_of(statement)
    names = (order_by,) if isinstance(order_by, str) else order_by
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        return _made(session, statement, model, order_by)
    mapper = sa.inspect(model)
    if (
        not isinstance(mapper, Mapper)  # an alias, which is another one each time
        or not has_one_source(statement)
        or not all(_is_of(model, mapper, one) for one in statement.column_descriptions)
    ):
        return _made(session, statement, model, order_by)
    # orders by fields alone are few: what is built for one serves all pages
    key = tuple(names), bind_of(session, model).dialect.name
    kept: dict[str, Any] = mapper.class_manager.info  # goes with the class
    known: dict[Any, Order] = kept.setdefault("qapla_db.orders", {})
    if key not in known:
        made = _made(session, statement, model, order_by)
        if len(known) >= _MOST:
            known.clear()
        known[key] = made
        return made
    return known[key]


def _is_of(model: type[Any], mapper: Mapper[Any], description: Mapping[str, Any]) -> bool:
    expression = description["expr"]
    if expression is model:
        return True
    return isinstance(expression, QueryableAttribute) and expression.parent is mapper


def _made(
    session: Session, statement: sa.Select[Any], model: type[Any], order_by: OrderBy
) -> Order:
    dialect = bind_of(session, model).dialect
    default = nulls_sort_last(session, model)
    clauses = order_clauses(model, order_by, nulls_sort_last=default)
    for clause in clauses:
        _check(statement, without_direction(clause), model)
    named = _named(order_by)
    filled = filled_tables(sources_of(statement))
    parts: list[Part] = []
    for clause in completed(clauses, row_key(statement)):
        descending, nulls_last = _direction(clause)
        if len(parts) >= len(clauses) and clauses:
            descending = parts[-1].descending  # of the key, so that one comparison does for all
        elif len(parts) in named:
            nulls_last = descending
        expression = _bare(without_direction(clause))
        nullable = not is_never_null(expression, filled)
        if dialect.name in _MYSQL and isinstance(expression.type, sa.Enum):
            # it is ordered by number, but compared as text
            expression = sa.type_coerce(expression, sa.BigInteger) + 0
        kind = kind_of(_type_of(expression), dialect)
        plain = kind.type is expression.type or isinstance(expression.type, sa.Integer)
        parts.append(
            Part(
                expression=expression,
                operand=expression if plain else sa.type_coerce(expression, kind.type),
                bound=sa.bindparam(_parameter(len(parts)), type_=kind.type),
                descending=descending,
                nulls_last=default != descending if nulls_last is None else nulls_last,
                nullable=nullable,
                default_nulls_last=default,
                dialect=dialect.name,
                kind=kind,
            )
        )
    return Order(model, parts, dialect)


def _named(order_by: OrderBy) -> set[int]:
    parts = order_by if isinstance(order_by, list | tuple) else [order_by]
    return {number for number, one in enumerate(parts) if isinstance(one, str)}


def _check(statement: sa.Select[Any], expression: ColumnElement[Any], model: type[Any]) -> None:
    if isinstance(expression, Tuple):
        raise InvalidArgument(
            "an order by tuple_() has no single value to go on from; pass its columns as a list"
        )
    if has_window(expression) or aggregates(expression):
        raise InvalidArgument(
            f"the order is by {str(expression)!r}, which is not of one row alone, so that no row "
            "can be compared with it; put it into a subquery, or use paginate()"
        )
    if lacks_source(statement, expression):
        raise InvalidArgument(
            f"the order is by {str(expression)!r}, of a table that this select does not have, and "
            "each row would come once for every row of that table; join it: "
            f"select({mapper_read(model).class_.__name__}).join(...)"
        )


def _bare(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    # an attribute of a subclass adds the join of its tables to those that are there, and
    # leaves out the rows of other classes, where it is selected or compared
    owners = (one._annotations.get("parentmapper") for one in inner_columns(expression))
    if any(isinstance(owner, Mapper) and owner.inherits is not None for owner in owners):
        bare: ColumnElement[Any] = _deep_deannotate(expression)
        return bare
    return expression


def _parameter(number: int) -> str:
    return f"value_of_position_{number}"


def _type_of(expression: Any) -> Any:
    # SQLAlchemy knows no result type of the functions that everybody uses here
    name = str(getattr(expression, "name", "")).lower()
    if isinstance(expression, Function) and isinstance(expression.type, sa.types.NullType):
        if name in _TEXT_FUNCTIONS:
            return sa.String()
        if name in _LENGTH_FUNCTIONS:
            return sa.Integer()
    return expression.type


def _direction(clause: Any) -> tuple[bool, bool | None]:
    descending, nulls_last = False, None
    while isinstance(clause, UnaryExpression) and clause.modifier is not None:
        if clause.modifier is desc_op:
            descending = True
        elif clause.modifier in (nulls_first_op, nulls_last_op):
            nulls_last = clause.modifier is nulls_last_op
        clause = clause.element
    return descending, nulls_last


def _fingerprint(model: type[Any], order: Sequence[Part], dialect: Dialect) -> str:
    texts = (
        f"{_name(part.expression, dialect)} {part.descending} {part.nullable and part.nulls_last}"
        for part in order
    )
    text = "\n".join([mapper_read(model).class_.__qualname__, *texts])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _name(expression: ColumnElement[Any], dialect: Dialect) -> str:
    if isinstance(expression, sa.Column) and isinstance(expression.table, sa.Table):
        return f"{expression.table.fullname}.{expression.name}"
    compiled = expression.compile(dialect=dialect)
    return f"{compiled} {sorted(compiled.params.items())}"


def _segments(
    parts: Sequence[Part], given: Sequence[bool], inclusive: bool, tied: bool
) -> list[Condition]:
    first = parts[0]
    null = first.expression.is_(None)
    if not given[0]:
        nulls = sa.and_(null, _after(parts[1:], given[1:], inclusive))
        return [nulls] if first.nulls_last else [nulls, first.expression.is_not(None)]
    length = _prefix(parts, given)
    if tied and 0 < length < len(parts):
        # among many rows that are the same in the first parts a bound on these is too far off
        same = [part.same(True) for part in parts[:length]]
        rest = _after(parts[length:], given[length:], inclusive)
        return [sa.and_(*same, rest), _beyond_row(parts[:length], False)]
    if first.skips_nulls:
        return [_after(parts, given, inclusive)]
    # no index has both, the values after one and the nulls after all values
    return [_after([replace(first, nullable=False), *parts[1:]], given, inclusive), null]


def _after(parts: Sequence[Part], given: Sequence[bool], inclusive: bool) -> Condition:
    """Return the condition that a row is after a position, wherever nulls may be."""
    length = _prefix(parts, given)
    if length == 0:
        return _nested(parts, given, inclusive)
    if length == len(parts):
        return _beyond_row(parts, inclusive)
    # the bound follows from the rest, but only a bound is a range of an index
    return sa.and_(_beyond_row(parts[:length], True), _nested(parts, given, inclusive))


def _nested(parts: Sequence[Part], given: Sequence[bool], inclusive: bool) -> Condition:
    if not parts:
        return sa.true() if inclusive else sa.false()
    if len(parts) == 1 and not inclusive:
        return parts[0].after(given[0])
    same = sa.and_(parts[0].same(given[0]), _nested(parts[1:], given[1:], inclusive))
    return sa.or_(parts[0].after(given[0]), same)


def _prefix(parts: Sequence[Part], given: Sequence[bool]) -> int:
    """Return how many of the first parts one comparison of rows can stand for."""
    length = 0
    for part, has_value in zip(parts, given, strict=True):
        if part.descending != parts[0].descending or not has_value or not part.skips_nulls:
            break
        length += 1
        if part.dialect != "postgresql":
            break  # the others use an index for the first part of such a comparison only
    return length


def _beyond_row(parts: Sequence[Part], inclusive: bool) -> Condition:
    descending = parts[0].descending
    if len(parts) == 1:
        return _beyond(parts[0].operand, parts[0].bound, descending, inclusive)
    operands = sa.tuple_(*(part.operand for part in parts))
    bounds = sa.tuple_(*(part.bound for part in parts))
    return _beyond(operands, bounds, descending, inclusive)


def _beyond(left: Any, right: Any, descending: bool, inclusive: bool) -> Condition:
    clause: Condition
    if descending:
        clause = left <= right if inclusive else left < right
    else:
        clause = left >= right if inclusive else left > right
    return clause
