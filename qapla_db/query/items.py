"""What pages by number and pages by position have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

__all__ = ["Items"]

M = TypeVar("M")


class Items(Generic[M]):
    """Some of the rows of a select, with iteration and ``len``.

    :ivar items: the instances, values or rows.
    :ivar per_page: how many there are on a full page.
    """

    __slots__ = ("items", "per_page")

    def __init__(self, items: list[M], per_page: int) -> None:
        self.items = items
        self.per_page = per_page

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True  # an empty page is a page

    def _plain(self, item: Callable[[M], Any] | None) -> list[Any]:
        """Return the items as JSON may hold them."""
        if item is not None:
            return [item(one) for one in self.items]
        return [dict(one._mapping) if isinstance(one, sa.Row) else one for one in self.items]
