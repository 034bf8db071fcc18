"""Renames in place of drops: found, asked about, tried out.

What autogenerate sees of a rename is a column that is gone and one that is new.
A rename is never guessed. It is said beforehand, by the models or by the caller,
or asked about. It is then executed for real in the shadow database, and the
comparison is made again: what follows a rename by itself needs no operation.
"""

from __future__ import annotations

from qapla_db.migrations.renames.answers import Answers, Ask
from qapla_db.migrations.renames.detection import Detection
from qapla_db.migrations.renames.unhandled import refuse_unhandled

__all__ = ["Answers", "Ask", "Detection", "refuse_unhandled"]
