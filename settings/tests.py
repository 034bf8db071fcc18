from typing import Any


def make_settings(settings: Any, paths: Any) -> None:
    """Give the tests a server and databases of their own."""
    with paths.context("project_root") as root:
        root.set("data", "var-tests")
    for name in ("main", "audit"):
        url = settings[f"db:{name}:url"]
        settings[f"db:{name}:url"] = url.set(
            database=f"{paths.get('data')}/postgresql"
        ).update_query_dict({"database": f"rotarran_{name}_test", "fsync": "off"})
