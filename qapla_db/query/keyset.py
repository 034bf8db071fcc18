"""Pages by position: what comes after the last row, at the same cost at any depth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.operators import desc_op, nulls_first_op, nulls_last_op

from qapla_db.errors import InvalidArgument
from qapla_db.query.filters import OrderBy, order_clauses
from qapla_db.query.identity import completed, is_grouped, row_key, without_direction
from qapla_db.query.pages import as_plain, check_select, positive
from qapla_db.query.targets import bind_of, model_of, nulls_sort_last
from qapla_db.query.tokens import Kind, Position, decode, encode, kind_of

__all__ = ["KeysetPage", "paginate_keyset"]

M = TypeVar("M")

_TEXT_FUNCTIONS = frozenset(
    {"initcap", "left", "lower", "ltrim", "replace", "reverse", "right", "rtrim", "substr"}
    | {"substring", "trim", "unaccent", "upper"}
)
_LENGTH_FUNCTIONS = frozenset({"char_length", "length", "octet_length"})
_MYSQL = frozenset({"mysql", "mariadb"})


class KeysetPage(Generic[M]):
    """A page of the rows of a select. Iteration and ``len`` are those of its items.

    :ivar items: the instances, values or rows, always in the order asked for.
    :ivar per_page: how many items a full page has.
    :ivar next_token: what to pass as ``after`` for the page after; None on the last.
    :ivar prev_token: what to pass as ``before`` for the page before; None on the first.
    """

    __slots__ = ("items", "next_token", "per_page", "prev_token")

    def __init__(
        self, items: list[M], *, per_page: int, next_token: str | None, prev_token: str | None
    ) -> None:
        self.items = items
        self.per_page = per_page
        self.next_token = next_token
        self.prev_token = prev_token

    def __repr__(self) -> str:
        return f"<keyset page, {len(self)} items>"

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True  # an empty page is a page

    @property
    def has_next(self) -> bool:
        """Whether a page follows; where one went back to this one, whether one did."""
        return self.next_token is not None

    @property
    def has_prev(self) -> bool:
        """Whether a page comes before; where one came here from it, whether one did."""
        return self.prev_token is not None

    def as_dict(self, item: Callable[[M], Any] | None = None) -> dict[str, Any]:
        """Return the page as a mapping that JSON can hold, where its items can.

        :param item: what makes an item ready for it; without, a row of several columns
            becomes a mapping by their names, and anything else stays as it is.
        """
        return {
            "items": as_plain(self.items, item),
            "per_page": self.per_page,
            "has_next": self.has_next,
            "next_token": self.next_token,
            "has_prev": self.has_prev,
            "prev_token": self.prev_token,
        }


@overload
def paginate_keyset(
    session: Session,
    statement: sa.Select[M],
    *,
    order_by: OrderBy,
    after: str | None = None,
    before: str | None = None,
    per_page: int | str = 10,
    max_per_page: int = 100,
) -> KeysetPage[M]: ...


@overload
def paginate_keyset(
    session: Session,
    statement: sa.Select[*tuple[Any, ...]],
    *,
    order_by: OrderBy,
    after: str | None = None,
    before: str | None = None,
    per_page: int | str = 10,
    max_per_page: int = 100,
) -> KeysetPage[Any]: ...


def paginate_keyset(
    session: Session,
    statement: sa.Select[*tuple[Any, ...]],
    *,
    order_by: OrderBy,
    after: str | None = None,
    before: str | None = None,
    per_page: int | str = 10,
    max_per_page: int = 100,
) -> KeysetPage[Any]:
    """Return the page of rows after or before a position.

    The primary keys of what is selected complete the order, in the direction of its
    last part. With an index over the whole order a page costs the same at any depth.

    :param session: the session.
    :param statement: a select of a mapped class, without an order or limit of its own.
    :param order_by: fields (``-`` before the descending; nulls come first ascending,
        last descending) or SQL expressions (nulls where they or the database put them).
    :param after: the ``next_token`` of the page before this one.
    :param before: the ``prev_token`` of the page after this one.
    :param per_page: how many items to a page; a string of digits too.
    :param max_per_page: what a greater ``per_page`` is lowered to.
    :raises InvalidArgument: an argument is out of range, or the select has an order, a
        limit or groups.
    :raises InvalidToken: a token is malformed, or belongs to another order.
    """
    size = min(positive("per_page", per_page), positive("max_per_page", max_per_page))
    if after is not None and before is not None:
        raise InvalidArgument("a page is after one position or before one; pass one token")
    _check(statement)
    model: type[Any] = model_of(statement)
    dialect = bind_of(session, model).dialect
    order = _order(session, statement, model, order_by)
    kinds = [part.kind for part in order]
    fingerprint = _fingerprint(model, order, dialect)

    backwards = before is not None
    token = before if backwards else after
    start = None if token is None else decode(token, kinds, fingerprint)
    parts = [part.reversed() for part in order] if backwards else order
    items, values = _read(session, statement, parts, start, size + 1)

    follows = len(items) > size
    tied = _is_tied(parts, values)
    del items[size:]
    if backwards:
        items.reverse()

    def token_at(end: int) -> str:
        if values:
            position = Position(values[end], tied=tied)
        else:
            assert start is not None
            position = Position(start.values, inclusive=not start.inclusive)
        return encode(position, kinds, fingerprint)

    onward = token_at(size - 1) if follows else None
    back = token_at(0) if start is not None else None
    return KeysetPage(
        items,
        per_page=size,
        next_token=back if backwards else onward,
        prev_token=onward if backwards else back,
    )


def _check(statement: Any) -> None:
    check_select(statement)
    if statement._order_by_clauses:
        raise InvalidArgument("this select has an order of its own; pass it as order_by")
    if is_grouped(statement):
        raise InvalidArgument(
            "rows that are grouped, aggregated or distinct have no position to go on from; "
            "filter by EXISTS instead of a join, or use paginate()"
        )


@dataclass(frozen=True)
class _Part:
    """One part of an order."""

    expression: ColumnElement[Any]
    operand: ColumnElement[Any]  # of the type that its values are bound with
    descending: bool
    nulls_last: bool
    nullable: bool
    dialect: str
    default_nulls_last: bool  # ascending, where nothing is said
    kind: Kind

    def reversed(self) -> _Part:
        return replace(self, descending=not self.descending, nulls_last=not self.nulls_last)

    @property
    def skips_nulls(self) -> bool:
        """Whether a comparison with a value gives all that comes after it."""
        return not (self.nullable and self.nulls_last)

    def clauses(self) -> list[ColumnElement[Any]]:
        clause = self.expression.desc() if self.descending else self.expression.asc()
        if not self.nullable or self.nulls_last == (self.default_nulls_last != self.descending):
            return [clause]
        if self.dialect in _MYSQL:  # has no words for it
            null = self.expression.is_(None)
            return [null.asc() if self.nulls_last else null.desc(), clause]
        return [clause.nulls_last() if self.nulls_last else clause.nulls_first()]

    def column(self) -> ColumnElement[Any]:
        if self.kind.cast:
            return sa.cast(self.expression, self.kind.type)
        return self.operand

    def bound(self, value: Any) -> ColumnElement[Any]:
        return sa.literal(value, self.kind.type)

    def same(self, value: Any) -> ColumnElement[bool]:
        return self.expression.is_(None) if value is None else self.operand == self.bound(value)

    def after(self, value: Any) -> ColumnElement[bool]:
        if value is None:
            return sa.false() if self.nulls_last else self.expression.is_not(None)
        beyond = _beyond(self.operand, self.bound(value), self.descending, False)
        return beyond if self.skips_nulls else sa.or_(beyond, self.expression.is_(None))


def _beyond(left: Any, right: Any, descending: bool, inclusive: bool) -> ColumnElement[bool]:
    clause: ColumnElement[bool]
    if descending:
        clause = left <= right if inclusive else left < right
    else:
        clause = left >= right if inclusive else left > right
    return clause


def _order(
    session: Session, statement: sa.Select[Any], model: type[Any], order_by: OrderBy
) -> list[_Part]:
    dialect = bind_of(session, model).dialect
    default = nulls_sort_last(session, model)
    clauses = order_clauses(model, order_by, nulls_sort_last=default)
    maybe_missing = _has_outer_join(statement)

    def part(clause: ColumnElement[Any], descending: bool | None = None) -> _Part:
        expression = without_direction(clause)
        said, nulls_last = _direction(clause)
        descending = said if descending is None else descending
        if dialect.name in _MYSQL and isinstance(expression.type, sa.Enum):
            # it is ordered by number, but compared as text
            expression = sa.type_coerce(expression, sa.BigInteger) + 0
        kind = kind_of(_type_of(expression), dialect)
        plain = kind.type is expression.type or isinstance(expression.type, sa.Integer)
        return _Part(
            expression=expression,
            operand=expression if plain else sa.type_coerce(expression, kind.type),
            descending=descending,
            nulls_last=default != descending if nulls_last is None else nulls_last,
            nullable=maybe_missing or bool(getattr(expression, "nullable", True)),
            dialect=dialect.name,
            default_nulls_last=default,
            kind=kind,
        )

    parts = [part(clause) for clause in clauses]
    last = parts[-1].descending if parts else False
    rest = completed(clauses, row_key(statement))[len(clauses) :]
    return parts + [part(clause, last) for clause in rest]


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


def _has_outer_join(statement: sa.Select[Any]) -> bool:
    if any(flags["isouter"] or flags["full"] for *_, flags in statement._setup_joins):
        return True
    return any(map(_is_outer, statement._from_obj))


def _is_outer(source: Any) -> bool:
    if not isinstance(source, sa.Join):
        return False
    return source.isouter or source.full or _is_outer(source.left) or _is_outer(source.right)


def _fingerprint(model: type[Any], order: Sequence[_Part], dialect: Dialect) -> str:
    texts = (
        f"{_name(part.expression, dialect)} {part.descending} {part.nullable and part.nulls_last}"
        for part in order
    )
    text = "\n".join([model.__qualname__, *texts])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _name(expression: ColumnElement[Any], dialect: Dialect) -> str:
    if isinstance(expression, sa.Column) and isinstance(expression.table, sa.Table):
        return f"{expression.table.fullname}.{expression.name}"
    compiled = expression.compile(dialect=dialect)
    return f"{compiled} {sorted(compiled.params.items())}"


def _read(
    session: Session,
    statement: sa.Select[Any],
    parts: Sequence[_Part],
    start: Position | None,
    limit: int,
) -> tuple[list[Any], list[tuple[Any, ...]]]:
    width = len(statement.column_descriptions)
    ordered = statement.order_by(*(clause for part in parts for clause in part.clauses()))
    columns = [part.column().label(f"position_{number}") for number, part in enumerate(parts)]
    ordered = ordered.add_columns(*columns)
    conditions = [None] if start is None else _segments(parts, start)
    items: list[Any] = []
    values: list[tuple[Any, ...]] = []
    for condition in conditions:
        segment = ordered if condition is None else ordered.where(condition)
        result = session.execute(segment.limit(limit - len(items)))
        if result._unique_filter_state is not None:  # joined eager loading has multiplied rows
            result = result.unique()
        names = list(result.keys())[:width]
        rows = result.all()
        values += [tuple(row[width:]) for row in rows]
        items += [row[0] for row in rows] if width == 1 else _without(rows, names)
        if len(items) >= limit:
            break
    return items, values


def _without(rows: Sequence[Any], names: list[str]) -> list[Any]:
    width = len(names)
    return list(IteratorResult(SimpleResultMetaData(names), iter([row[:width] for row in rows])))


def _segments(parts: Sequence[_Part], start: Position) -> list[Any]:
    """Return conditions whose rows follow each other, each within one range of an index.

    One is enough on nearly all pages; the next is asked for only where rows are missing.
    """
    values, inclusive = start.values, start.inclusive
    first = parts[0]
    null = first.expression.is_(None)
    if values[0] is None:
        nulls = sa.and_(null, _after(parts[1:], values[1:], inclusive))
        return [nulls] if first.nulls_last else [nulls, first.expression.is_not(None)]
    length = _prefix(parts, values)
    if start.tied and 0 < length < len(parts):
        # among many rows that are the same in the first parts a bound on these is too far off
        same = [part.same(value) for part, value in zip(parts[:length], values, strict=False)]
        rest = _after(parts[length:], values[length:], inclusive)
        return [sa.and_(*same, rest), _beyond_row(parts[:length], values, False)]
    if first.skips_nulls:
        return [_after(parts, values, inclusive)]
    # no index has both, the values after one and the nulls after all values
    return [_after([replace(first, nullable=False), *parts[1:]], values, inclusive), null]


def _after(parts: Sequence[_Part], values: Sequence[Any], inclusive: bool) -> ColumnElement[bool]:
    """Return the condition that a row is after the values, wherever nulls may be."""
    length = _prefix(parts, values)
    if length == 0:
        return _nested(parts, values, inclusive)
    if length == len(parts):
        return _beyond_row(parts, values, inclusive)
    # the bound follows from the rest, but only a bound is a range of an index
    bound = _beyond_row(parts[:length], values, True)
    return sa.and_(bound, _nested(parts, values, inclusive))


def _nested(parts: Sequence[_Part], values: Sequence[Any], inclusive: bool) -> ColumnElement[bool]:
    if not parts:
        return sa.true() if inclusive else sa.false()
    part, value = parts[0], values[0]
    if len(parts) == 1 and not inclusive:
        return part.after(value)
    same = sa.and_(part.same(value), _nested(parts[1:], values[1:], inclusive))
    return sa.or_(part.after(value), same)


def _prefix(parts: Sequence[_Part], values: Sequence[Any]) -> int:
    """Return how many of the first parts one comparison of rows can stand for."""
    length = 0
    for part, value in zip(parts, values, strict=True):
        if part.descending != parts[0].descending or value is None or not part.skips_nulls:
            break
        length += 1
        if part.dialect != "postgresql":
            break  # the others use an index for the first part of such a comparison only
    return length


def _beyond_row(
    parts: Sequence[_Part], values: Sequence[Any], inclusive: bool
) -> ColumnElement[bool]:
    descending = parts[0].descending
    bounds = [part.bound(value) for part, value in zip(parts, values, strict=False)]
    if len(parts) == 1:
        return _beyond(parts[0].operand, bounds[0], descending, inclusive)
    operands = [part.operand for part in parts]
    return _beyond(sa.tuple_(*operands), sa.tuple_(*bounds), descending, inclusive)


def _is_tied(parts: Sequence[_Part], rows: Sequence[Sequence[Any]]) -> bool:
    # the range optimizer of MariaDB and MySQL needs no help
    if len(rows) < 2 or parts[0].dialect in _MYSQL:
        return False
    length = _prefix(parts, rows[0])
    return 0 < length < len(parts) and rows[0][:length] == rows[-1][:length]
