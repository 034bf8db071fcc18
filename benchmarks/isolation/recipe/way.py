from __future__ import annotations

import os

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

ISOLATED = True
engine = sa.create_engine(os.environ["DATABASE_URL"])
open_session: sessionmaker[Session] = sessionmaker(engine)


def get_engine() -> sa.Engine:
    return engine
