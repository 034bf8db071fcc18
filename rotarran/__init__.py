"""Rotarran: the reference application of qapla_db.

``main`` is the application object: the views, the tasks, both ``env.py`` and
the tests import this one.
"""

from rotarran.application.app import RotarranApplication

__all__ = ["main"]

main = RotarranApplication()
