"""Routes that tell what the server is: /system_stats, /object_info, /features."""

import platform
import sys

from aiohttp import web

from local.comfyui.node_definitions import NODE_DEFINITIONS
from local.comfyui.node_types import describe_node, describe_nodes
from local.comfyui.server_state import ServerState

# A machine that does not exist: nothing of the real one is told.
_MEMORY_BYTES = 16 * 1024**3


class InfoRoutes:
    """Handlers without side effects."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._list_files = state.folders.list_inputs

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/system_stats", self.get_system_stats),
            web.get("/features", self.get_features),
            web.get("/object_info", self.get_object_info),
            web.get("/object_info/{class_type}", self.get_class_info),
        ]

    async def get_system_stats(self, _request: web.Request) -> web.Response:
        """Answer versions and memory; `argv` tells that this is a simulator."""
        system = {
            "os": sys.platform,
            "ram_total": _MEMORY_BYTES,
            "ram_free": _MEMORY_BYTES,
            "comfyui_version": self._state.profile.comfyui_version,
            "required_frontend_version": None,
            "installed_templates_version": None,
            "required_templates_version": None,
            "python_version": platform.python_version(),
            "pytorch_version": None,
            "embedded_python": False,
            "argv": ["ml-service", "comfyui"],
        }
        device = {
            "name": "cpu",
            "type": "cpu",
            "index": None,
            "vram_total": _MEMORY_BYTES,
            "vram_free": _MEMORY_BYTES,
            "torch_vram_total": _MEMORY_BYTES,
            "torch_vram_free": _MEMORY_BYTES,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def get_features(self, _request: web.Request) -> web.Response:
        """Answer what the server can do."""
        return web.json_response(self._state.features)

    async def get_object_info(self, _request: web.Request) -> web.Response:
        """Answer all node classes."""
        return web.json_response(describe_nodes(NODE_DEFINITIONS.values(), self._list_files))

    async def get_class_info(self, request: web.Request) -> web.Response:
        """Answer one node class, {} for an unknown one."""
        class_type = request.match_info["class_type"]
        definition = NODE_DEFINITIONS.get(class_type)
        if definition is None:
            return web.json_response({})
        return web.json_response({class_type: describe_node(definition, self._list_files)})
