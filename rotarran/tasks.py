"""The tasks, and the Celery application that runs them.

Start a worker with ``celery -A rotarran.tasks worker``.
"""

from __future__ import annotations

import heapq
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy.orm import Session

import rotarran.broker  # noqa: F401  registers files://
from qapla_db.decorators import INJECTED, WithDatabase, connect_celery
from rotarran import main as application
from rotarran.application.db import Origin
from rotarran.application.drivers import (
    AirportReadDriver,
    EventWriteDriver,
    NeighbourWriteDriver,
)

EARTH_RADIUS = 6371.0088  # kilometres, mean radius of the WGS 84 ellipsoid


def celery_settings() -> dict[str, Any]:
    """Return Celery's configuration, from the settings of the application."""
    settings = application.settings_for("celery").settings
    config: dict[str, Any] = {
        "broker_url": settings["celery:broker_url"],
        "broker_connection_retry_on_startup": True,
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_acks_late": True,
        "worker_hijack_root_logger": False,
    }
    if settings["celery:broker_url"].startswith("files:"):
        folder = Path(settings["celery:broker_folder"])
        for name in ("messages", "control"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        config["broker_transport_options"] = {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.1,
        }
    return config


celery = Celery("rotarran")
celery.add_defaults(celery_settings)  # read when Celery needs it, not at import
connect_celery(celery, application)


@celery.task(name="rotarran.compute_neighbours")
@WithDatabase(application, "main")
@WithDatabase(application, "audit")
def compute_neighbours(
    code: str,
    who: str,
    count: int = 10,
    *,
    main: Session = INJECTED,
    audit: Session = INJECTED,
) -> int:
    """Find the airports nearest to one, store them, and return how many."""
    airports = AirportReadDriver(main)
    here = airports.get_by_id(code)
    distances = (
        (great_circle(here.latitude, here.longitude, latitude, longitude), other)
        for other, latitude, longitude in airports.positions()
        if other != code
    )
    nearest = {other: distance for distance, other in heapq.nsmallest(count, distances)}
    NeighbourWriteDriver(main).replace(code, nearest)
    EventWriteDriver(audit).create(
        who=f"worker, for {who}",
        action="computed neighbours",
        origin=Origin.COMMAND if compute_neighbours.request.called_directly else Origin.WORKER,
        airport_code=code,
        details={"found": len(nearest)},
    )
    main.commit()
    audit.commit()
    return len(nearest)


def great_circle(
    latitude: float, longitude: float, other_latitude: float, other_longitude: float
) -> float:
    """Return the distance of two points on the earth in kilometres (haversine formula)."""
    one, two = radians(latitude), radians(other_latitude)
    half = sin((two - one) / 2) ** 2
    half += cos(one) * cos(two) * sin(radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS * asin(min(1.0, sqrt(half)))
