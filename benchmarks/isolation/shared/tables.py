"""Thirty tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Columns:
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    note: Mapped[str | None] = mapped_column(sa.Text)


def _make(number: int) -> Any:
    parent = sa.ForeignKey(f"table_{number}.id", deferrable=True, initially="DEFERRED")
    columns = {"__tablename__": f"table_{number}", "parent_id": mapped_column(parent)}
    return type(f"Planet{number}", (Columns, Base), columns)


PLANETS = [_make(number) for number in range(30)]
