"""What a function must be to be given a session, and what its callers see of it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qapla_db.errors import Misuse

__all__ = ["Slot", "full_name", "hide_parameter", "refuse_unsuitable", "take_slot"]

_MARK = "__qapla_databases__"

_Parameter = inspect.Parameter
_ByPosition = _Parameter.POSITIONAL_OR_KEYWORD
_ByKeyword = _Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class Slot:
    """The parameter that takes the session.

    ``position`` is its place among the arguments, None when it is passed by keyword only.
    """

    app: object
    database: str
    parameter: str
    position: int | None


def full_name(function: Callable[..., Any]) -> str:
    """Return a function's name with its module, for messages."""
    return f"{function.__module__}.{function.__qualname__}()"


def refuse_unsuitable(target: object) -> None:
    """Raise Misuse for what cannot be given a session by wrapping it."""
    if _is_celery_task(target):
        raise Misuse(
            "@WithDatabase stands above @app.task (or @shared_task), where no call passes; "
            "put it under it, directly above the function"
        )
    if isinstance(target, (staticmethod, classmethod)):
        kind = type(target).__name__
        raise Misuse(
            f"@WithDatabase stands above @{kind} of {target.__func__.__qualname__}(); put it under "
            f"@{kind}, directly above the function"
        )
    if isinstance(target, type):
        raise Misuse(
            f"@WithDatabase stands above the class {target.__name__} and decorates functions; "
            "put it above the method that does the work, such as run()"
        )
    if not callable(target) or not hasattr(target, "__qualname__"):
        raise Misuse(
            f"@WithDatabase decorates functions, not {target!r}; write a function with def"
        )
    # not the innermost function: a decorator in between may run a coroutine, or exhaust a generator
    if inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target):
        raise Misuse(
            f"{full_name(target)} is async and would run after its session is closed (Celery would "
            "not run it at all); make it a plain function"
        )
    if inspect.isgeneratorfunction(target):
        raise Misuse(
            f"{full_name(target)} is a generator and would run after its session is closed; "
            "return a list instead of yielding"
        )


def _is_celery_task(target: object) -> bool:
    # without an import, and before a look at its attributes would register a lazy task too early
    local, task = sys.modules.get("celery.local"), sys.modules.get("celery.app.task")
    if local is not None and isinstance(target, local.Proxy):
        return True
    return task is not None and isinstance(target, task.Task)


def take_slot(function: Callable[..., Any], app: object, database: str, parameter: str) -> Slot:
    """Find the parameter of a function that takes the session of a database.

    :raises Misuse: there is none that could, or the database has one already.
    """
    taken: tuple[Slot, ...] = getattr(function, _MARK, ())
    for slot in taken:
        if slot.app is app and slot.database == database:
            raise Misuse(
                f"{full_name(function)} is given a session of the database {database!r} twice; "
                "remove one @WithDatabase"
            )
        if slot.parameter == parameter:
            raise Misuse(
                f"the parameter {parameter!r} of {full_name(function)} takes the session of the "
                f"database {slot.database!r} already; give {database!r} a parameter of its own "
                "with param="
            )
    parameters = inspect.signature(function).parameters
    found = parameters.get(parameter)
    if found is None or found.kind in (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD):
        raise Misuse(
            f"{full_name(function)} has no parameter {parameter!r} for the session of the database "
            f"{database!r}; add '*, {parameter}: Session = INJECTED', or name its own with param="
        )
    if found.kind is _Parameter.POSITIONAL_ONLY:
        raise Misuse(
            f"the parameter {parameter!r} of {full_name(function)} is positional-only, so no "
            "session can be passed by its name; move it behind the '/'"
        )
    position = list(parameters).index(parameter) if found.kind is _ByPosition else None
    return Slot(app, database, parameter, position)


def hide_parameter(wrapper: Any, function: Callable[..., Any], slot: Slot) -> None:
    """Make a wrapper look like the function without the parameter.

    Celery checks the arguments of ``.delay()``, and pydantic those of the call,
    against what they see here.
    """
    signature = inspect.signature(function)
    left = [one for one in signature.parameters.values() if one.name != slot.parameter]
    wrapper.__signature__ = signature.replace(parameters=left)
    annotations: dict[str, Any] = getattr(function, "__annotations__", {})
    wrapper.__annotations__ = {
        name: value for name, value in annotations.items() if name != slot.parameter
    }
    setattr(wrapper, _MARK, (*getattr(function, _MARK, ()), slot))
