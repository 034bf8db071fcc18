"""Whether a settings package is the project's own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from qapla_db.errors import SettingsModuleMissing

__all__ = ["refuse_settings_of_another_project"]


def refuse_settings_of_another_project(package: str, module: str) -> None:
    """See that Python has not passed over the project's settings for those of another one.

    It prefers a directory with ``__init__.py``, wherever on its path, to one without.

    :param package: import path of the settings package.
    :param module: name of the module that defines the application.
    :raises SettingsModuleMissing: the settings found are elsewhere, while a directory with
        ``default.py`` in the working directory or beside the application lacks ``__init__.py``.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ModuleNotFoundError, ValueError):
        return  # who loads the settings says so better
    if spec is None or not spec.has_location or spec.origin is None:
        return
    found = Path(spec.origin).resolve().parent
    own = [place.joinpath(*package.split(".")).resolve() for place in _places(module)]
    if found in own:
        return
    for directory in own:
        if (directory / "default.py").is_file() and not (directory / "__init__.py").exists():
            raise SettingsModuleMissing(
                f"the settings package {package!r} was found in {found}, because "
                f"{directory} has no __init__.py; add the file, empty, so that the settings "
                "of this project are used and not those of another one"
            )


def _places(module: str) -> Iterator[Path]:
    """Yield the working directory, and the one that the application's top package is in."""
    with suppress(FileNotFoundError):  # it may have been removed
        yield Path.cwd()
    top = sys.modules.get(module.partition(".")[0])
    file = getattr(top, "__file__", None)
    if file:
        yield Path(file).parents[1 if hasattr(top, "__path__") else 0]
