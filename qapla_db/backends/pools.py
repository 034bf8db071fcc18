"""Which keywords of create_engine a pool class takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["pool_takes"]

# keyword of create_engine -> argument of the pool class
_POOL_ARGUMENTS = {
    "pool_pre_ping": "pre_ping",
    "pool_recycle": "recycle",
    "pool_timeout": "timeout",
    "pool_use_lifo": "use_lifo",
    "pool_size": "pool_size",
    "max_overflow": "max_overflow",
}


def pool_takes(key: str, options: Mapping[str, Any]) -> bool:
    """Tell whether the pool that the options choose takes a keyword; others are not of the pool."""
    if options.get("pool") is not None and (key == "poolclass" or key in _POOL_ARGUMENTS):
        return False
    if key not in _POOL_ARGUMENTS:
        return True
    poolclass = options.get("poolclass")
    return poolclass is None or _accepts(poolclass, _POOL_ARGUMENTS[key])


def _accepts(poolclass: Any, argument: str) -> bool:
    for cls in getattr(poolclass, "__mro__", ()):
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters
            if argument in parameters:
                return True
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                return False
    return False
