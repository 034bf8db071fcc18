from typing import Any


def make_settings(settings: Any, paths: Any) -> None:
    """Set nothing."""
