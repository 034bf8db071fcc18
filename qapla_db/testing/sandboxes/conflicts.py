"""What the one connection of a sandbox cannot show of several transactions, and says so."""

from __future__ import annotations

import warnings

from qapla_db.errors import SandboxConflict
from qapla_db.testing.sandboxes.savepoints import REMEDY, Lane

__all__ = ["SandboxWarning", "conflict", "tell", "undone"]


class SandboxWarning(UserWarning):
    """A rollback undid what other transactions of the test had committed."""


def conflict(database: str, lane: Lane, other: Lane | str, what: str) -> SandboxConflict:
    """Make the error of two transactions that wrote before either had ended.

    :param what: what the first did then.
    """
    return SandboxConflict(
        f"database {database!r}: the transactions of {lane} and of {other} both wrote "
        f"before either had ended, and the first {what}; the one connection of the sandbox "
        f"cannot show this. End one before the other writes, or {REMEDY}"
    )


def undone(database: str, lane: Lane, *, depth: int) -> SandboxWarning | None:
    """Tell which commits of others inside a lane, in so many savepoints, are gone."""
    gone = [other for at, other in lane.swallowed if at >= depth]
    if not gone:
        return None
    lane.swallowed = [(at, other) for at, other in lane.swallowed if at < depth]
    return SandboxWarning(
        f"database {database!r}: the rollback of the transaction of {lane} undid what "
        f"{' and '.join(gone)} committed in the meantime, because they share the one "
        "connection of the sandbox. Commit or close the first before the others run, or "
        f"{REMEDY}"
    )


def tell(loss: SandboxConflict | SandboxWarning | None) -> None:
    """Raise an error, or warn."""
    if isinstance(loss, SandboxConflict):
        raise loss
    if loss is not None:
        warnings.warn(loss, stacklevel=3)
