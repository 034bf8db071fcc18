"""Pages by position: what comes after the last row, at the same cost at any depth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.engine.result import IteratorResult
from sqlalchemy.orm import Session

from qapla_db.errors import InvalidArgument
from qapla_db.query.filters import OrderBy
from qapla_db.query.identity import has_windows, is_grouped, returns_sets
from qapla_db.query.items import Items
from qapla_db.query.paging import checked_select, size_of
from qapla_db.query.positions import Order, order_of
from qapla_db.query.tokens import Position, decode, encode

__all__ = ["KeysetPage", "paginate_keyset"]

M = TypeVar("M")


class KeysetPage(Items[M]):
    """A page of the rows of a select. Iteration and ``len`` are those of its items.

    :ivar items: the instances, values or rows, always in the order asked for.
    :ivar per_page: how many items a full page has.
    :ivar next_token: what to pass as ``after`` for the page after; None on the last.
    :ivar prev_token: what to pass as ``before`` for the page before; None on the first.
    """

    __slots__ = ("next_token", "prev_token")

    def __init__(
        self, items: list[M], *, per_page: int, next_token: str | None, prev_token: str | None
    ) -> None:
        super().__init__(items, per_page)
        self.next_token = next_token
        self.prev_token = prev_token

    def __repr__(self) -> str:
        return f"<keyset page, {len(self)} items>"

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
            "items": self._plain(item),
            "per_page": self.per_page,
            "has_next": self.has_next,
            "next_token": self.next_token,
            "has_prev": self.has_prev,
            "prev_token": self.prev_token,
        }


@overload
def paginate_keyset(
    session: Session,
    statement: type[M] | sa.Select[M],
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
    statement: type[Any] | sa.Select[*tuple[Any, ...]],
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
    :param statement: a mapped class, or a select of one without an order or limit of its own.
    :param order_by: fields (``-`` before the descending; nulls come first ascending,
        last descending) or SQL expressions (nulls where they or the database put them).
    :param after: the ``next_token`` of the page before this one.
    :param before: the ``prev_token`` of the page after this one.
    :param per_page: how many items to a page; a string of digits too.
    :param max_per_page: what a greater ``per_page`` is lowered to.
    :raises InvalidArgument: an argument is out of range, the select has an order, a limit or
        groups, or the order is by a table that the select does not have.
    :raises InvalidToken: a token is malformed, or belongs to another order.
    """
    size = size_of(per_page, max_per_page)
    if after is not None and before is not None:
        raise InvalidArgument("a page is after one position or before one; pass one token")
    statement = _checked(statement)
    order = order_of(session, statement, order_by)
    backwards = before is not None
    token = before if backwards else after
    start = None if token is None else decode(token, order.kinds, order.fingerprint)
    items, values = _read(session, statement, order, start, backwards, size + 1)
    if any(one == other for one, other in pairwise(values)):
        raise _repeated()

    follows = len(items) > size
    tied = (order.backwards if backwards else order.forwards).is_tied(values)
    del items[size:]
    if backwards:
        items.reverse()

    def token_at(end: int) -> str:
        if values:
            position = Position(values[end], tied=tied)
        else:
            assert start is not None
            position = Position(start.values, inclusive=not start.inclusive)
        return encode(position, order.kinds, order.fingerprint)

    onward = token_at(size - 1) if follows else None
    back = token_at(0) if start is not None else None
    return KeysetPage(
        items,
        per_page=size,
        next_token=back if backwards else onward,
        prev_token=onward if backwards else back,
    )


def _checked(target: Any) -> sa.Select[Any]:
    statement = checked_select(target)
    if statement._order_by_clauses:
        raise InvalidArgument("this select has an order of its own; pass it as order_by")
    if is_grouped(statement):
        raise InvalidArgument(
            "rows that are grouped, aggregated or distinct have no position to go on from; "
            "filter by EXISTS instead of a join, or use paginate()"
        )
    if has_windows(statement):
        raise InvalidArgument(
            "a window function in the columns sees the rows of this page and those after it only, "
            "and gives other values on each; put it into a subquery, or use paginate()"
        )
    if returns_sets(statement):
        raise InvalidArgument(
            "a function in the columns makes several rows of one, which then share a position; "
            "put it into a lateral subquery, or use paginate()"
        )
    return statement


def _repeated() -> InvalidArgument:
    return InvalidArgument(
        "rows of this select share a position: something in it repeats the primary key, and pages "
        "would lose rows; filter by EXISTS instead of a join, group a joined subquery by what it "
        "is joined by, or order by what tells the rows apart"
    )


def _read(
    session: Session,
    statement: sa.Select[Any],
    order: Order,
    start: Position | None,
    backwards: bool,
    limit: int,
) -> tuple[list[Any], list[tuple[Any, ...]]]:
    width = len(statement.column_descriptions)
    direction = order.backwards if backwards else order.forwards
    ordered = statement.order_by(*direction.clauses).add_columns(*order.columns)
    parameters = None if start is None else order.parameters(start)
    items: list[Any] = []
    values: list[tuple[Any, ...]] = []
    for condition in [None] if start is None else direction.conditions(start):
        segment = ordered if condition is None else ordered.where(condition)
        result = session.execute(segment.limit(limit - len(items)), parameters)
        if result._unique_filter_state is not None:  # joined eager loading has multiplied rows
            result = result.unique()
        asked = None if width == 1 else result._metadata._reduce(range(width))
        rows = result.all()
        values += [tuple(row[width:]) for row in rows]
        items += [row[0] for row in rows] if asked is None else IteratorResult(asked, iter(rows))
        if len(items) >= limit:
            break
    return items, values
