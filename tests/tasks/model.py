"""What the tasks of the tests store: in ``main`` notes, in ``audit`` marks."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Main(DeclarativeBase):
    """Base of the models of ``main``."""


class Audit(DeclarativeBase):
    """Base of the models of ``audit``."""


class Note(Main):
    """A row that says whose it is."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(80), index=True)
    text: Mapped[str] = mapped_column(String(200))


class Mark(Audit):
    """A row of the second database."""

    __tablename__ = "mark"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(80), index=True)
    text: Mapped[str] = mapped_column(String(200))
