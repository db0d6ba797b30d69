"""The mark that a local mode leaves while it runs, by which the next one knows what was lost.

The embedded AWS lives in memory: a local mode that is killed takes its queues and records along.
"""

import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from local.replace_file import replace_file

_log = logging.getLogger(__name__)

COUNTED_JOBS = 1000
"""More open jobs are not counted."""


class RunState(BaseModel):
    """What a local mode holds that would be lost with it."""

    model_config = ConfigDict(frozen=True)

    started_at: datetime
    run_folder: Path
    """Its servers' files and its logs, which nobody removes if it is killed."""
    open_jobs: int = 0
    """Without their final answer, or with something left to be done; counted up to COUNTED_JOBS."""
    waiting_messages: int = 0
    """In the input queue, so not even a job yet."""


def find_marker_path(port: int) -> Path:
    """Where the local modes of a port leave their mark, one after the other."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ml-service" / f"local-{port}.json"


class RunMarker:
    """The mark of one local mode, to be touched only by the one that holds the port.

    A cache folder that cannot be written costs the mark, not the local mode.
    """

    def __init__(self, path: Path, run_folder: Path) -> None:
        """Write nothing yet: the port may be somebody else's."""
        self._path = path
        self._state = RunState(started_at=datetime.now(UTC), run_folder=run_folder)
        self._is_kept = False

    def begin(self) -> RunState | None:
        """Leave the mark; give what was lost if the last one was not taken away.

        What a killed local mode has left on the disk is removed.
        """
        lost = self._read()
        if lost is not None and lost.run_folder.name.startswith("ml-service-"):
            shutil.rmtree(lost.run_folder, ignore_errors=True)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, self._state.model_dump_json())
            self._is_kept = True
        except OSError as error:
            _log.warning("No mark of this run can be kept: %s", error)
        return lost

    def update(self, *, open_jobs: int, waiting_messages: int) -> None:
        """Write down what would be lost by now, if it is not what stands there; raises OSError."""
        state = self._state.model_copy(
            update={"open_jobs": open_jobs, "waiting_messages": waiting_messages}
        )
        if self._is_kept and state != self._state:
            replace_file(self._path, state.model_dump_json())
            self._state = state

    def end(self) -> None:
        """Take the mark away: whoever ended this local mode meant it."""
        if self._is_kept:
            self._path.unlink(missing_ok=True)

    def _read(self) -> RunState | None:
        try:
            return RunState.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None  # no mark, or one that another version wrote


def describe_loss(lost: RunState, port: int) -> str:
    """Tell a person what a killed local mode took along."""
    at_least = "at least " if lost.open_jobs >= COUNTED_JOBS else ""
    return (
        f"The last local mode on port {port}, begun at {lost.started_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"was killed. Its AWS lived in memory: lost are {at_least}{lost.open_jobs} open jobs, "
        f"{lost.waiting_messages} messages that waited to become one, and all queues, records and "
        "files. This one starts empty.\n"
    )
