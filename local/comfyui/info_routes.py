"""Routes that tell what the server is and has: versions, nodes, folders of models."""

import platform
import sys
from pathlib import PurePath

from aiohttp import web

from local.comfyui.model_files import MODEL_FOLDERS
from local.comfyui.node_types import describe_node, describe_nodes
from local.comfyui.server_state import ServerState

# A machine that does not exist: nothing of the real one is told.
_MEMORY_BYTES = 16 * 1024**3


class InfoRoutes:
    """Handlers without side effects."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._catalog = state.catalog

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/system_stats", self.get_system_stats),
            web.get("/features", self.get_features),
            web.get("/object_info", self.get_object_info),
            web.get("/object_info/{class_type}", self.get_class_info),
            web.get("/models", self.get_model_folders),
            web.get("/models/{folder}", self.get_models),
            web.get("/embeddings", self.get_embeddings),
            web.get("/extensions", self.get_extensions),
            web.get("/users", self.get_users),
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
        return web.json_response(
            describe_nodes(self._catalog.definitions.values(), self._catalog.list_files)
        )

    async def get_class_info(self, request: web.Request) -> web.Response:
        """Answer one node class, {} for an unknown one."""
        class_type = request.match_info["class_type"]
        definition = self._catalog.definitions.get(class_type)
        if definition is None:
            return web.json_response({})
        return web.json_response({class_type: describe_node(definition, self._catalog.list_files)})

    async def get_model_folders(self, _request: web.Request) -> web.Response:
        """Answer the kinds of models that there could be."""
        return web.json_response(MODEL_FOLDERS)

    async def get_models(self, request: web.Request) -> web.Response:
        """Answer the models of one kind; status 404 for an unknown kind."""
        folder = request.match_info["folder"]
        if folder not in MODEL_FOLDERS:
            return web.Response(status=404)
        return web.json_response(self._catalog.list_models(folder))

    async def get_embeddings(self, _request: web.Request) -> web.Response:
        """Answer the models among the embeddings as a prompt's text names them."""
        names = self._catalog.list_models("embeddings")
        return web.json_response([str(PurePath(name).with_suffix("")) for name in names])

    async def get_extensions(self, _request: web.Request) -> web.Response:
        """Answer an empty list: there are no pages for a browser."""
        return web.json_response([])

    async def get_users(self, _request: web.Request) -> web.Response:
        """Answer that the server keeps the settings of its one user."""
        return web.json_response({"storage": "server", "migrated": False})
