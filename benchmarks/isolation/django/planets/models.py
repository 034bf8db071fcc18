"""The thirty tables, for Django."""

from __future__ import annotations

from typing import Any

from django.db import models


def _make(number: int) -> Any:
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    columns = {
        "__module__": __name__,
        "name": models.CharField(max_length=50, unique=True),
        "note": models.TextField(null=True),
        "parent": parent,
        "Meta": type("Meta", (), {"db_table": f"table_{number}"}),
    }
    return type(f"Planet{number}", (models.Model,), columns)


PLANETS = [_make(number) for number in range(30)]
