"""What a type checker makes of a decorated function: mypy checks this file, and it runs."""

from __future__ import annotations

from typing import assert_type

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from qapla_db.decorators import INJECTED, WithDatabase
from tests.support import make_application


def test_a_decorated_function_keeps_its_type() -> None:
    """It is called with or without a session, and its arguments and result are checked."""
    with make_application({"main": "sqlite://"}) as app:

        @WithDatabase(app, "main")
        def add(x: int, y: int = 2, *, main: Session = INJECTED) -> int:
            return x + y if main.scalar(sa.text("SELECT 1")) else 0

        assert 3 == assert_type(add(1), int)
        assert 5 == add(1, y=4)
        with app.dbs["main"].session() as session:
            assert 3 == assert_type(add(1, main=session), int)
        with pytest.raises(TypeError):
            add()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            add(1, main="main")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            add(1, 2, session)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            add("")  # type: ignore[arg-type]
