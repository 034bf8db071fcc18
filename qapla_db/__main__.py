"""``python -m qapla_db`` is the command ``qapla-db``."""

from qapla_db.cli.main import run

if __name__ == "__main__":
    run()
