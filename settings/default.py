import os
from typing import Any

from sqlalchemy import URL


def make_settings(settings: Any, paths: Any) -> None:
    """Set what every endpoint needs: an embedded PostgreSQL with two databases."""
    with paths.context("project_root") as root:
        root.set("migrations_main", ["migrations", "main"])
        root.set("migrations_audit", ["migrations", "audit"])
        root.set("data", os.environ.get("ROTARRAN_DATA", "var"))
    data = paths.get("data")
    for name, database in {"main": "rotarran", "audit": "rotarran_audit"}.items():
        settings[f"db:{name}:url"] = URL.create(
            "embedded", database=os.path.join(data, "postgresql"), query={"database": database}
        )
    # a broker that needs no server; "redis://localhost:6379/0" for earnest
    settings["celery:broker_url"] = os.environ.get("ROTARRAN_BROKER", "files://localhost/")
    settings["celery:broker_folder"] = os.path.join(data, "broker")
