from __future__ import annotations

import os
from typing import Any


def make_settings(settings: Any, paths: Any) -> None:
    settings["db:main:url"] = os.environ["DATABASE_URL"].replace("_test_", "_earnest_")
    paths.set("migrations_main", "migrations", "project_root")
