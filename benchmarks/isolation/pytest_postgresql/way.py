from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

ISOLATED = True
open_session: sessionmaker[Session] = sessionmaker()


def get_engine() -> sa.Engine:
    engine = open_session.kw["bind"]
    assert isinstance(engine, sa.Engine)
    return engine
