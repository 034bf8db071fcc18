"""Pages by number: ``LIMIT`` and ``OFFSET``, and how many rows there are in all.

The attributes of a page are those of Flask-SQLAlchemy 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.orm import Session

from qapla_db.errors import InvalidArgument, PageNotFound
from qapla_db.query.identity import completed, entity_of, page_key, repeated_entity
from qapla_db.query.items import Items
from qapla_db.query.paging import (
    LARGEST,
    checked_select,
    criteria,
    fetched,
    positive,
    size_of,
)

__all__ = ["Page", "paginate"]

M = TypeVar("M")


class Page(Items[M]):
    """One page of the rows of a select. Iteration and ``len`` are those of its items.

    :ivar items: the instances, values or rows.
    :ivar page: its number, from 1.
    :ivar per_page: how many items a full page has.
    :ivar total: how many rows there are on all pages; None where they were not
        counted, or not to the end.
    :ivar more_than: the limit of a bounded count that there are more rows than; or None.
    """

    __slots__ = ("_follows", "_turn", "more_than", "page", "total")

    def __init__(
        self,
        items: list[M],
        *,
        page: int,
        per_page: int,
        total: int | None,
        more_than: int | None,
        follows: bool,
        turn: Callable[[int], Page[M]],
    ) -> None:
        super().__init__(items, per_page)
        self.page = page
        self.total = total
        self.more_than = more_than
        self._follows = follows
        self._turn = turn

    def __repr__(self) -> str:
        pages = "" if self.pages is None else f" of {self.pages}"
        total = "" if self.total is None else f" of {self.total}"
        return f"<page {self.page}{pages}, {len(self)}{total} items>"

    @property
    def pages(self) -> int | None:
        """How many pages there are; None where the total is not known."""
        return None if self.total is None else -(-self.total // self.per_page)

    @property
    def first(self) -> int:
        """Number of the first item among all, from 1; 0 on an empty page."""
        return (self.page - 1) * self.per_page + 1 if self.items else 0

    @property
    def last(self) -> int:
        """Number of the last item among all; 0 on an empty page."""
        return self.first + len(self) - 1 if self.items else 0

    @property
    def has_prev(self) -> bool:
        """Whether this is not the first page."""
        return self.page > 1

    @property
    def prev_num(self) -> int | None:
        """Number of the page before; None on the first."""
        return self.page - 1 if self.has_prev else None

    @property
    def has_next(self) -> bool:
        """Whether a page follows."""
        return self._follows

    @property
    def next_num(self) -> int | None:
        """Number of the page after; None on the last."""
        return self.page + 1 if self.has_next else None

    def prev(self) -> Page[M]:
        """Read the page before, with the same arguments, in the session of this one.

        :raises InvalidArgument: this is the first.
        """
        return self._turn(self.page - 1)

    def next(self) -> Page[M]:
        """Read the page after, with the same arguments, in the session of this one.

        After the last page that is an empty one, or an error where ``error_out`` is set.
        """
        return self._turn(self.page + 1)

    def iter_pages(
        self,
        *,
        left_edge: int = 2,
        left_current: int = 2,
        right_current: int = 4,
        right_edge: int = 2,
    ) -> Iterator[int | None]:
        """Yield the numbers of pages for a row of links, None for each gap.

        Where the total is not known the pages that are known of are followed by a gap.

        :param left_edge: how many of the first pages.
        :param left_current: how many before this page.
        :param right_current: how many after this page.
        :param right_edge: how many of the last pages.
        """
        known = self.pages
        edge = right_edge
        if known is None:
            counted = -(-(self.more_than + 1) // self.per_page) if self.more_than else 0
            known, edge = max(self.page + self.has_next, counted), 0
        shown = {
            *range(1, left_edge + 1),
            *range(self.page - left_current, self.page + right_current + 1),
            *range(known - edge + 1, known + 1),
        }
        before = 0
        for number in sorted(one for one in shown if 1 <= one <= known):
            if number > before + 1:
                yield None
            yield number
            before = number
        if before < known or (self.pages is None and self.has_next):
            yield None

    def as_dict(self, item: Callable[[M], Any] | None = None) -> dict[str, Any]:
        """Return the page as a mapping that JSON can hold, where its items can.

        :param item: what makes an item ready for it; without, a row of several columns
            becomes a mapping by their names, and anything else stays as it is.
        """
        return {
            "items": self._plain(item),
            "page": self.page,
            "per_page": self.per_page,
            "total": self.total,
            "more_than": self.more_than,
            "pages": self.pages,
            "first": self.first,
            "last": self.last,
            "has_prev": self.has_prev,
            "prev_num": self.prev_num,
            "has_next": self.has_next,
            "next_num": self.next_num,
        }


@overload
def paginate(
    session: Session,
    statement: type[M] | sa.Select[M],
    *,
    page: int | str = 1,
    per_page: int | str = 10,
    max_per_page: int = 100,
    count: bool | int = True,
    error_out: bool = False,
) -> Page[M]: ...


@overload
def paginate(
    session: Session,
    statement: sa.Select[*tuple[Any, ...]],
    *,
    page: int | str = 1,
    per_page: int | str = 10,
    max_per_page: int = 100,
    count: bool | int = True,
    error_out: bool = False,
) -> Page[Any]: ...


def paginate(
    session: Session,
    statement: type[Any] | sa.Select[*tuple[Any, ...]],
    *,
    page: int | str = 1,
    per_page: int | str = 10,
    max_per_page: int = 100,
    count: bool | int = True,
    error_out: bool = False,
) -> Page[Any]:
    """Return one page of the rows of a select.

    Its order is completed by the primary keys of what is selected, so that no row is
    on two pages. The rows are counted by a second query, which is left out where the
    page itself shows the total.

    :param session: the session.
    :param statement: a mapped class, or a select without a LIMIT or OFFSET of its own.
    :param page: number of the page, from 1; a string of digits too.
    :param per_page: how many items to a page; a string of digits too.
    :param max_per_page: what a greater ``per_page`` is lowered to.
    :param count: True: count all rows; False: count none; a number: count no further.
    :param error_out: raise for an empty page other than the first.
    :raises InvalidArgument: an argument is out of range, the select has a limit, or its join
        repeats instances that joined eager loading of a collection makes unique.
    :raises PageNotFound: there is no such page, and ``error_out`` is set.
    """
    number = positive("page", page)
    size = size_of(per_page, max_per_page)
    bound = None if isinstance(count, bool) else positive("count", count)
    statement = checked_select(statement)

    ordered = completed(statement._order_by_clauses, page_key(statement))
    rows = statement.order_by(None).order_by(*ordered)
    offset = (number - 1) * size
    extra = count is not True
    items: list[Any] = []
    whole = True
    if offset < LARGEST:
        limit = min(size + extra, LARGEST - offset)
        items, whole = fetched(session, rows.limit(limit).offset(offset or None))
        if not whole:
            _check_not_repeated(statement)
    total: int | None = None
    more_than: int | None = None
    if count is not False:
        if whole and len(items) < size + extra and (items or not offset):
            total = offset + len(items)  # the end is in sight
        else:
            total = _count(session, statement, bound)
        if bound is not None and total > bound:
            total, more_than = None, bound
    follows = len(items) > size if extra else offset + size < (total or 0)
    items = items[:size]
    if error_out and not items and number > 1:
        pages = None if total is None else -(-total // size)
        there = "" if pages is None else f"; there are {pages}"
        raise PageNotFound(f"there is no page {number}{there}", page=number, pages=pages)

    def turn(to: int) -> Page[Any]:
        if to < 1:
            raise InvalidArgument("there is no page before the first; has_prev tells")
        return paginate(
            session,
            statement,
            page=to,
            per_page=size,
            max_per_page=max_per_page,
            count=count,
            error_out=error_out,
        )

    return Page(
        items,
        page=number,
        per_page=size,
        total=total,
        more_than=more_than,
        follows=follows,
        turn=turn,
    )


def _check_not_repeated(statement: sa.Select[Any]) -> None:
    repeated = repeated_entity(statement)
    if repeated is not None:
        raise InvalidArgument(
            f"the join of this select may repeat rows of {repeated}, which joinedload() of a "
            "collection makes unique on a page but not among pages; filter by EXISTS instead of "
            "the join, such as .where(City.streets.any(...)), add .distinct(), or load the "
            "collection with selectinload()"
        )


def _count(session: Session, statement: sa.Select[Any], bound: int | None) -> int:
    counted = statement.order_by(None)
    counted._for_update_arg = None  # to count is not to lock
    if bound is not None:
        counted = counted.limit(min(bound + 1, LARGEST))
    options = dict(statement.get_execution_options())
    options.pop("yield_per", None)
    mapper = entity_of(statement)
    return session.execute(
        sa.select(sa.func.count()).select_from(counted.subquery()).options(*criteria(statement)),
        execution_options=options,
        bind_arguments={"mapper": mapper} if mapper else None,
    ).scalar_one()
