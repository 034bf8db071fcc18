"""What pytest has reported of tests: one fault is reported once, and where it was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qapla_db.errors import Closed

__all__ = ["Reports"]


class Reports:
    """A plugin of pytest that remembers the errors of the test that runs, and who closed what."""

    def __init__(self) -> None:
        self._shown: dict[str, list[type[BaseException]]] = {}
        self._closings: dict[int, str] = {}

    def has_shown(self, test: str, kind: type[BaseException]) -> bool:
        """Tell whether a test that runs has failed with an error, or one that came of it."""
        return any(issubclass(one, kind) for one in self._shown.get(test, ()))

    def closed(self, what: object, test: str) -> str:
        """Note that a test has closed something, if none has before, and return which one."""
        return self._closings.setdefault(id(what), test)

    # --- hooks

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Note the errors of a test's setup, call and teardown."""
        if call.excinfo is None:
            return
        problem = call.excinfo.value
        errors = list(_chain(problem, set()))
        # their types only: an error keeps alive what its frames hold
        self._shown.setdefault(item.nodeid, []).extend(type(one) for one in errors)
        if any(isinstance(one, Closed) for one in errors):
            said = "\n".join(map(str, errors))
            for test in dict.fromkeys(self._closings.values()):
                if test not in said:
                    problem.add_note(f"an application was closed by {test}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Forget a test that has ended."""
        self._shown.pop(nodeid, None)


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """Yield an error and all that it came of."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for one in (*inner, error.__cause__, error.__context__):
        yield from _chain(one, seen)
