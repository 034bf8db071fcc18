from __future__ import annotations

from planets import application
from sqlalchemy import Engine

from qapla_db import Session

ISOLATED = True


def open_session() -> Session:
    return application.dbs["main"].get_session()


def get_engine() -> Engine:
    return application.dbs["main"].engine
