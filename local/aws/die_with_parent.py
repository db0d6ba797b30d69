"""Ends this process when the process that started it is gone, however that one ended."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.5


def die_with_parent(parent_id: int) -> None:
    """Have this process killed at once when its parent, process ``parent_id``, ends.

    Linux kills by itself, but ties a child to the parent's *thread* and misses a parent that died
    before this call; a watching thread covers both, and the systems that have no such tie.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, args=(parent_id,), daemon=True).start()


def _watch_parent(parent_id: int) -> None:
    while os.getppid() == parent_id:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
