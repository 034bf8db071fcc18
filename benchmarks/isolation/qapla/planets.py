from __future__ import annotations

from qapla_db import Database, DatabaseApplication


class PlanetApplication(DatabaseApplication):
    def append_app_plugins(self) -> None:
        self.add_database_app([Database("main", "migrations_main")])


application = PlanetApplication()
