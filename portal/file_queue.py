"""The embedded queue: kombu's files, each message there whole or not at all."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """A channel that puts a message where readers look only when it's written.

    Kombu makes the file there and writes it then: a worker that looks in between reads nothing, and ends.
    """

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:  # type: ignore[override]  # its bases differ
        # As kombu names them: readers take a queue's oldest first.
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        file = Path(self.data_folder_out) / name
        unfinished = file.with_name(f"{name}.part")
        try:
            unfinished.write_text(dumps(message))  # type: ignore[no-untyped-call]
            os.replace(unfinished, file)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise ChannelError(f"Cannot add {file} to the queue") from error


class Transport(filesystem.Transport):
    """Celery's transport for ``filesystem://``."""

    Channel = Channel
