"""Values in the text format of PostgreSQL's COPY."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["CopyText"]

_NULL = "\\N"
_NONE = type(None)
_DRIVER = ("psycopg", "psycopg_binary", "psycopg_c")

# the text of PostgreSQL itself, and nothing in it to escape; what is not here the driver adapts
_TEXTS: dict[type, Callable[[Any], str]] = {
    bool: ("f", "t").__getitem__,
    bytes: lambda value: "\\\\x" + value.hex(),
    datetime.date: str,
    datetime.datetime: str,
    datetime.time: str,
    decimal.Decimal: str,
    float: repr,
    int: repr,
    uuid.UUID: str,
}


class CopyText:
    """Writes the values of certain columns.

    :param connection: of the driver psycopg, whose adapters are used for all that is not
        of the plainest kinds.
    :param columns: the columns.
    """

    def __init__(self, connection: Connection, columns: Sequence[sa.Column[Any]]) -> None:
        adapt: Any = connection.dialect.dbapi.adapt  # type: ignore[union-attr]
        raw: Any = connection.connection.driver_connection
        self._transformer = adapt.Transformer(raw)
        self._format = adapt.PyFormat.TEXT
        self._encoding = raw.info.encoding
        self._raw = raw
        self._writers = [_Column(self, column.type) for column in columns]

    def piece(self, values: Sequence[Sequence[Any]]) -> bytes:
        """Return rows as a piece of the data of a COPY.

        :param values: for each column the values of all rows, after its bind processor.
        """
        fields = [
            writer.texts(column) for writer, column in zip(self._writers, values, strict=True)
        ]
        return ("\n".join(map("\t".join, zip(*fields, strict=True))) + "\n").encode(self._encoding)

    def writer_of(self, kind: type, sample: Any) -> Callable[[Any], str]:
        """Return what makes a text of a value of this kind."""
        dumper = self._transformer.get_dumper(sample, self._format)
        own = type(dumper).__module__.partition(".")[0] in _DRIVER
        if own and kind is str:
            return _escaped
        if own and kind in _TEXTS:
            return _TEXTS[kind]
        return self._adapted

    def local(self, moment: datetime.datetime) -> str:
        """Return a moment as a column without time zone holds it.

        As text the server would ignore its offset.
        """
        if moment.tzinfo is None:
            return str(moment)
        return str(moment.astimezone(self._raw.info.timezone).replace(tzinfo=None))

    def _adapted(self, value: Any) -> str:
        data = self._transformer.get_dumper(value, self._format).dump(value)
        return _NULL if data is None else _escaped(bytes(data).decode(self._encoding))


class _Column:
    """Writes the values of one column."""

    def __init__(self, text: CopyText, kind: sa.types.TypeEngine[Any]) -> None:
        self._text = text
        self._writers: dict[type, Callable[[Any], str]] = {_NONE: lambda value: _NULL}
        if isinstance(kind, sa.TypeDecorator):
            kind = kind.impl_instance
        if isinstance(kind, sa.Integer):
            self._writers.update({bool: ("0", "1").__getitem__, float: _whole})
        if isinstance(kind, sa.DateTime) and not kind.timezone:
            self._writers[datetime.datetime] = text.local

    def texts(self, values: Sequence[Any]) -> Iterable[str]:
        kinds = set(map(type, values))
        if kinds == {_NONE}:
            return repeat(_NULL, len(values))
        writers = self._writers
        if not kinds <= writers.keys():
            self._learn(values)
        if len(kinds) > 1:
            return [writers[type(value)](value) for value in values]
        writer = writers[kinds.pop()]
        if writer is _escaped and not _needs_escape("".join(values)):
            return values
        return map(writer, values)

    def _learn(self, values: Sequence[Any]) -> None:
        for value in values:
            if type(value) not in self._writers:
                self._writers[type(value)] = self._text.writer_of(type(value), value)


def _whole(value: float) -> str:
    # what is no whole number is for the server to refuse
    return repr(int(value)) if value.is_integer() else repr(value)


def _needs_escape(text: str) -> bool:
    return "\\" in text or "\t" in text or "\n" in text or "\r" in text


def _escaped(text: str) -> str:
    if not _needs_escape(text):
        return text
    text = text.replace("\\", "\\\\").replace("\t", "\\t")
    return text.replace("\n", "\\n").replace("\r", "\\r")
