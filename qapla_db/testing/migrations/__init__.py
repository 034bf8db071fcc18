"""Tests of the migrations of every database of an application."""

from __future__ import annotations

from qapla_db.testing.migrations.collecting import migration_tests

__all__ = ["migration_tests"]
