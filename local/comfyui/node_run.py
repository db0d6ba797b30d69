"""What a node's implementation is given, and what it returns."""

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from PIL import Image

from local.comfyui.media_folders import MediaFolders


class OutOfMemoryError(RuntimeError):
    """When a GPU has too little memory; named as the real error is."""

    __module__ = "torch"


class ReportProgress(Protocol):
    """Tells how far a node is; raises PromptInterruptedError where it is to stop."""

    def __call__(self, value: float, highest: float, preview: Image.Image | None = None, /) -> None:
        """Report steps done and steps in all, and a picture of the work."""


def _report_nothing(_value: float, _highest: float, _preview: Image.Image | None = None) -> None:
    """Serve a run that nobody watches."""


class PromptInterruptedError(Exception):
    """When the running prompt is cancelled; it may surface wherever progress is reported."""


@dataclass(frozen=True)
class NodeResult:
    """The values of a node's output slots, and what an output node shows in the history."""

    values: tuple[Any, ...] = ()
    shown: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class NodeRun:
    """The surroundings of one execution of a node."""

    folders: MediaFolders
    now: datetime
    prompt: Mapping[str, Any]
    extra_png_info: Mapping[str, Any] = field(default_factory=dict)
    check_interrupt: Callable[[], None] = lambda: None
    report_progress: ReportProgress = _report_nothing
    tell_text: Callable[[str], None] = lambda _text: None

    def metadata(self) -> dict[str, Any]:
        """Return what saved files carry: the prompt itself and the request's own values."""
        return {"prompt": self.prompt, **self.extra_png_info}

    def temp_prefix(self) -> str:
        """Return a prefix for preview files that no other node uses."""
        letters = "".join(random.choices(string.ascii_lowercase, k=5))
        return f"ComfyUI_temp_{letters}"


# Called with the run and the node's inputs by name.
NodeImplementation = Callable[..., NodeResult]
