"""The door to the tasks."""

from qapla_db.tasks.celery import WithDatabase, connect_celery

__all__ = ["WithDatabase", "connect_celery"]
