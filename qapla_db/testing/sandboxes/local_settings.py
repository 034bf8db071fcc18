"""Which settings of PostgreSQL a statement changes, and for how long.

In a sandbox the end of a transaction is none for the server, so what was set for
one transaction has to be set back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["changed_settings"]

_SET = re.compile(
    r"\bset\s+(?P<scope>local\s+|session\s+)?"
    r"(?P<name>time\s+zone|session\s+authorization|role\b|schema\b|names\b"
    r"|\"?[a-z_][\w.$]*\"?(?=\s*(?:=|to\b)))",
    re.IGNORECASE,
)
_ARGUMENT = r"(?:'(?P<{0}>[^']*)'|%\((?P<{0}_key>\w+)\)s)(?:::\w+(?:\s+varying)?)?"
_SET_CONFIG = re.compile(
    rf"\bset_config\s*\(\s*{_ARGUMENT.format('name')}\s*,.*?,\s*"
    rf"(?:(?P<local>true|false)|%\((?P<local_key>\w+)\)s)",
    re.IGNORECASE | re.DOTALL,
)
_OTHER_NAMES = {
    "time zone": "timezone",
    "session authorization": "session_authorization",
    "schema": "search_path",
    "names": "client_encoding",
}
_OF_TRANSACTIONS = {"transaction_isolation", "transaction_read_only", "transaction_deferrable"}
"""What can only be set at the beginning of a transaction."""


def changed_settings(statement: str, parameters: object) -> dict[str, bool]:
    """Return the names of the settings that a statement changes; True for one transaction only.

    :param statement: as the driver gets it; only its words are looked at.
    :param parameters: those of the statement.
    """
    found = _found(statement)
    if not found:
        return {}
    values = parameters if isinstance(parameters, Mapping) else {}
    return {name: local for name, local in _named(found, values) if name not in _OF_TRANSACTIONS}


@lru_cache(maxsize=1024)
def _found(statement: str) -> tuple[Mapping[str, str | None], ...]:
    if _is_update(statement):
        return tuple(one.groupdict() for one in _SET_CONFIG.finditer(statement))
    return tuple(
        one.groupdict() for pattern in (_SET, _SET_CONFIG) for one in pattern.finditer(statement)
    )


def _is_update(statement: str) -> bool:
    """Tell whether SET means columns in a statement."""
    return bool(re.search(r"\b(?:update|insert|merge|alter)\b", statement, re.IGNORECASE))


def _named(
    found: tuple[Mapping[str, str | None], ...], values: Mapping[Any, Any]
) -> Iterator[tuple[str, bool]]:
    for one in found:
        if "scope" in one:
            name = " ".join((one["name"] or "").strip('"').lower().split())
            yield _OTHER_NAMES.get(name, name), (one["scope"] or "").lower().startswith("local")
        else:
            name = str(one["name"] or values.get(one["name_key"]) or "").lower()
            given = (one["local"] or "").lower()
            local = given == "true" if given else bool(values.get(one["local_key"]))
            if name:
                yield name, local
