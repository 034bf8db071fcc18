"""The worker of the demo: it ends when its standard input does, so also with a killed demo."""

from __future__ import annotations

import os
import signal
import threading

from rotarran.tasks import celery

OPTIONS = ["--concurrency=2", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]


def end_with_input() -> None:
    """Wait for the end of the standard input, whose other end the demo holds; then end."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    celery.start(["--quiet", "worker", *OPTIONS])
