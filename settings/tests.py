import os
from typing import Any

from sqlalchemy import URL


def make_settings(settings: Any, paths: Any) -> None:
    """Give the tests a server and databases of their own, whatever ``local.py`` says."""
    with paths.context("project_root") as root:
        root.set("data", "var-tests")
    folder = os.path.join(paths.get("data"), "postgresql")
    for name in ("main", "audit"):
        settings[f"db:{name}:url"] = URL.create(
            "embedded",
            database=folder,
            query={"database": f"rotarran_{name}_test", "fsync": "off"},
        )
