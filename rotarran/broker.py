"""A broker that needs no server: Kombu's messages in files, each there as a whole or not at all.

Kombu's own transport writes a message under its final name, so that a worker can
take it while it is still empty. For earnest use Redis or RabbitMQ: what a worker has
taken in hand is lost when it is killed.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path
from time import time_ns
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """A channel that makes messages appear at once."""

    def _put(self, queue: Any, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=".part")
        with open(descriptor, "w") as file:
            file.write(dumps(payload))
        os.replace(name, folder / f"{time_ns():020}_{uuid.uuid4()}.{queue}.msg")


class Transport(filesystem.Transport):
    """``files://localhost/``."""

    Channel = Channel


TRANSPORT_ALIASES["files"] = "rotarran.broker:Transport"
