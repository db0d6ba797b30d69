"""One instance's ComfyUI over HTTP, with its websocket as a hint."""

from ml_service.adapters.comfyui.call_instance import Timeouts
from ml_service.adapters.comfyui.http_comfyui import HttpComfyUI, HttpComfyUIConnector

__all__ = ["HttpComfyUI", "HttpComfyUIConnector", "Timeouts"]
