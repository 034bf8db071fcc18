"""Values that fit the binary format of PostgreSQL's COPY, which its server reads faster."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine import Connection

__all__ = ["CopyBinary"]

_BOOL, _BYTEA, _INT8, _INT2, _INT4, _TEXT = 16, 17, 20, 21, 23, 25
_FLOAT8, _VARCHAR, _DATE, _TIMESTAMP, _TIMESTAMPTZ = 701, 1043, 1082, 1114, 1184
_NUMERIC, _UUID = 1700, 2950

# of a type the one kind of value that needs no cast
_KINDS: dict[int, type] = {
    _BOOL: bool,
    _BYTEA: bytes,
    _INT2: int,
    _INT4: int,
    _INT8: int,
    _TEXT: str,
    _VARCHAR: str,
    _FLOAT8: float,
    _DATE: datetime.date,
    _TIMESTAMP: datetime.datetime,
    _TIMESTAMPTZ: datetime.datetime,
    _NUMERIC: decimal.Decimal,
    _UUID: uuid.UUID,
}
_BITS = {_INT2: 15, _INT4: 31, _INT8: 63}
_NONE = type(None)


class CopyBinary:
    """Tells whether values can go in binary.

    They are of just the kind that their column is of: the driver writes them
    as they are, and cuts what is too large. All else takes the text format.

    :param connection: of the driver psycopg.
    :param oids: the types of the columns.
    """

    def __init__(self, connection: Connection, oids: Sequence[int]) -> None:
        self.oids = tuple(oids)
        driver: Any = connection.connection.driver_connection
        form: Any = connection.dialect.dbapi.adapt.PyFormat.BINARY  # type: ignore[union-attr]
        self._possible = all(
            oid in _KINDS and _is_of_driver(driver.adapters.get_dumper(_KINDS[oid], form))
            for oid in self.oids
        )
        self._allowed = [{_KINDS.get(oid, _NONE), _NONE} for oid in self.oids]
        self._checks = [_check(oid, driver.info.encoding) for oid in self.oids]

    def fits(self, values: Sequence[Sequence[Any]]) -> bool:
        """Tell whether rows can go in binary.

        :param values: for each column the values of all rows.
        """
        if not self._possible:
            return False
        return all(
            allowed.issuperset(map(type, column)) and (check is None or check(column))
            for allowed, check, column in zip(self._allowed, self._checks, values, strict=True)
        )


def _is_of_driver(dumper: type) -> bool:
    return dumper.__module__.partition(".")[0] in ("psycopg", "psycopg_binary", "psycopg_c")


def _check(oid: int, encoding: str) -> Callable[[Sequence[Any]], bool] | None:
    if oid in (_TEXT, _VARCHAR):
        return lambda values: _is_encodable(values, encoding)
    if oid == _NUMERIC:
        # psycopg 3.2 writes a number beyond the format's 16 bits as another one
        return lambda values: all(one is None or -1000 < one.adjusted() < 1000 for one in values)
    if oid in _BITS:
        limit = 1 << _BITS[oid]
        return lambda values: _is_within(values, limit)
    if oid in (_TIMESTAMP, _TIMESTAMPTZ):
        naive = oid == _TIMESTAMP
        return lambda values: all(one is None or (one.tzinfo is None) is naive for one in values)
    return None


def _is_within(values: Sequence[Any], limit: int) -> bool:
    numbers = [one for one in values if one is not None] if None in values else values
    return not numbers or (-limit <= min(numbers) and max(numbers) < limit)


def _is_encodable(values: Sequence[Any], encoding: str) -> bool:
    # where the driver finds it, half a row is in its buffer already, which psycopg 3.2 sends
    try:
        "".join(filter(None, values)).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
