"""What a query of a model promises, on every kind of database.

:class:`~qapla_db.query.sql.Query` keeps these promises on SQL databases; a
query of another kind of database has the same names, arguments, results and
errors.

1. Filters and orders are data: a mapping of field to value, names of fields
   with ``-`` before the descending ones. That SQL databases take SQL
   expressions too is no part of the promise.
2. There may be no identity map and nothing is flushed by itself: a change is
   told by :meth:`~QueryInterface.update`.
3. There may be no savepoints: after a Conflict the whole unit of work may have
   to be run again.
4. ``get_or_create``, ``upsert`` and ``on_conflict`` name a key that is declared
   unique. Without one they are refused with what to declare, or keep the
   weaker promise that their documentation states.
5. None in a filter means that the field has no value. Without a value comes
   first in ascending orders, last in descending ones.
6. Counts are of what was matched or stored, never of what differs now. Where
   part of a bulk was stored, the error names it.
7. Keys are opaque, and the caller may set them; nothing relies on numbers that
   a database gives.
8. Counting can be bounded or left out, and pages by position exist beside pages
   by number.
9. What needs one connection, such as locks of rows or cursors that outlive a
   transaction, may be refused as Unsupported.
10. Errors are those of :mod:`qapla_db.errors`; a driver's error or code is no
    part of the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

from qapla_db.query.keyset import KeysetPage
from qapla_db.query.pages import Page

__all__ = ["QueryInterface"]

M = TypeVar("M")


class QueryInterface(Protocol[M]):
    """A query of one model; the module says what holds for all of it."""

    def get_one(self, id: Any) -> M:
        """Return the instance with a primary key, or raise NotFound."""

    @overload
    def find(
        self,
        filter_by: Mapping[str, Any] | None = None,
        *,
        order_by: str | Sequence[str] | None = None,
        paginate: Literal[True] = True,
        page: int = 1,
        per_page: int = 10,
    ) -> Page[M]: ...

    @overload
    def find(
        self,
        filter_by: Mapping[str, Any] | None = None,
        *,
        order_by: str | Sequence[str] | None = None,
        paginate: Literal[False],
        page: int = 1,
        per_page: int = 10,
    ) -> list[M]: ...

    def find(self, filter_by: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Return a page of what answers a filter, or all of it as a list."""

    def find_one(self, filter_by: Mapping[str, Any] | None = None) -> M | None:
        """Return the one that answers; None when none does, MultipleFound when several do."""

    def check_exists(self, filter_by: Mapping[str, Any] | None = None) -> bool:
        """Tell whether anything answers."""

    def count(self, filter_by: Mapping[str, Any] | None = None) -> int:
        """Return how many answer."""

    def paginate(
        self,
        page: int | str = 1,
        per_page: int | str = 10,
        *,
        max_per_page: int = 100,
        count: bool | int = True,
        error_out: bool = False,
    ) -> Page[M]:
        """Return a page by number."""

    def paginate_keyset(
        self,
        order_by: str | Sequence[str],
        *,
        after: str | None = None,
        before: str | None = None,
        per_page: int | str = 10,
        max_per_page: int = 100,
    ) -> KeysetPage[M]:
        """Return a page by position."""

    def stream(self, chunk: int = 1000) -> Iterator[M]:
        """Yield what answers, with constant memory."""

    def get_or_create(self, *, filter_by: Mapping[str, Any], **defaults: Any) -> tuple[M, bool]:
        """Return the one with these values, and whether it had to be created."""

    def update(self, instance: M, values: Mapping[str, Any]) -> M:
        """Change fields of an instance."""

    def delete(self, instance: M) -> None:
        """Delete an instance."""

    def upsert(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        by: str | Sequence[str],
        update: str | Sequence[str] | None = None,
    ) -> Any:
        """Insert rows, and change those that have their key already."""

    def bulk_update(
        self, rows: Iterable[Mapping[str, Any]], by: str | Sequence[str] | None = None
    ) -> int:
        """Change rows that exist, each by its own key; return how many were matched."""

    def bulk_insert(
        self,
        rows: Iterable[Any],
        *,
        on_conflict: Literal["error", "ignore", "update"] = "error",
        by: str | Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store rows; return how many were inserted or updated."""
