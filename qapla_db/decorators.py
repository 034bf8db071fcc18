"""The door to the tasks."""

from qapla_db.tasks.celery import INJECTED, WithDatabase, connect_celery

__all__ = ["INJECTED", "WithDatabase", "connect_celery"]
