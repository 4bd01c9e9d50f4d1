"""Workers that outlive nobody: light, since a worker imports it before anything else."""

from __future__ import annotations

import os
import signal
import threading
import time

INTERVAL = 1.0
"""Seconds between looks at the parent."""


def leave_with(parent: int) -> None:
    """End this process as soon as the one that started it is gone, however that ended, and though it is gone by now.

    A terminal interrupts all processes at once: what that means is for the parent to say, and no worker ends by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
