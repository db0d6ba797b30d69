"""What the routes of one server work on."""

from dataclasses import dataclass
from typing import Any

from local.comfyui.fault_injection import FaultInjector
from local.comfyui.media_folders import MediaFolders
from local.comfyui.node_catalog import NodeCatalog
from local.comfyui.profiles import Profile
from local.comfyui.prompt_queue import PromptQueue
from local.comfyui.prompt_worker import PromptWorker
from local.comfyui.run_log import RunLog
from local.comfyui.validation import PromptValidator
from local.comfyui.websocket_hub import WebsocketHub


@dataclass
class ServerState:
    """The parts of a running server; `prompt_count` counts requests and numbers prompts."""

    profile: Profile
    max_request_bytes: int
    folders: MediaFolders
    catalog: NodeCatalog
    queue: PromptQueue
    worker: PromptWorker
    validator: PromptValidator
    hub: WebsocketHub
    faults: FaultInjector
    runs: RunLog
    prompt_count: int = 0

    @property
    def features(self) -> dict[str, Any]:
        """What the server can do, for /features and the websocket."""
        return {**self.profile.features, "max_upload_size": self.max_request_bytes}

    def next_number(self) -> int:
        """Count a request and return its number."""
        number = self.prompt_count
        self.prompt_count += 1
        return number
