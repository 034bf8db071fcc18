"""What belongs to the application."""

from qapla_db.application import DatabaseApplication
from qapla_db.database import Database


class RotarranApplication(DatabaseApplication):
    """Airports in ``main``; who did what to them in ``audit``."""

    def append_app_plugins(self) -> None:
        self.add_database_app(
            [Database("main", "migrations_main"), Database("audit", "migrations_audit")]
        )

    def append_web_plugins(self) -> None:
        self.add_database_web()
        self.config.include("pyramid_jinja2")
        self.config.include("rotarran.application.views")
