"""The application: settings first, then its plugins, and only then the databases.

``Application`` is a small host. ``DatabaseApplication`` is it with databases;
``DatabaseMixin`` adds them to a host of another make that has ``settings`` and
``paths`` (and ``config`` for the web).
"""

from qapla_db.application.base import Application
from qapla_db.application.base import instances_of as instances_of
from qapla_db.application.databases import DatabaseApplication, DatabaseMixin
from qapla_db.application.plugins import Plugin

__all__ = ["Application", "DatabaseApplication", "DatabaseMixin", "Plugin"]
