"""What the routes of one server work on."""

from dataclasses import dataclass

from local.comfyui.fault_injection import FaultInjector
from local.comfyui.media_folders import MediaFolders
from local.comfyui.prompt_queue import PromptQueue
from local.comfyui.prompt_worker import PromptWorker
from local.comfyui.run_log import RunLog
from local.comfyui.validation import PromptValidator
from local.comfyui.websocket_hub import WebsocketHub

# The version whose behaviour is followed.
COMFYUI_VERSION = "0.12.1"

# ComfyUI's default for --max-upload-size; it limits every request body.
MAX_REQUEST_BYTES = 100 * 1024 * 1024


@dataclass
class ServerState:
    """The parts of a running server; `prompt_count` counts requests and numbers prompts."""

    folders: MediaFolders
    queue: PromptQueue
    worker: PromptWorker
    validator: PromptValidator
    hub: WebsocketHub
    faults: FaultInjector
    runs: RunLog
    prompt_count: int = 0

    def next_number(self) -> int:
        """Count a request and return its number."""
        number = self.prompt_count
        self.prompt_count += 1
        return number
