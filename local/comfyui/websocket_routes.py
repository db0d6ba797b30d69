"""The route of the websocket: /ws."""

import json
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from local.comfyui.faults import Occasion
from local.comfyui.prompt_routes import queue_info
from local.comfyui.server_state import ServerState


class WebsocketRoutes:
    """The handler that keeps a websocket open."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/ws", self.connect)]

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """Register a socket under its client id, or a new one, until it closes."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        is_silent = self._state.faults.board.take(Occasion.WEBSOCKET) is not None
        if not is_silent:
            self._state.hub.add(client_id, socket)
        try:
            await self._greet(socket, client_id)
            is_first = True
            async for message in socket:
                if message.type is WSMsgType.TEXT and is_first:
                    await self._answer_features(socket, client_id, message.data)
                is_first = False
        finally:
            if not is_silent:
                self._state.hub.remove(client_id)
        return socket

    async def _greet(self, socket: web.WebSocketResponse, client_id: str) -> None:
        status = queue_info(self._state.queue.remaining)
        await _send(socket, "status", {"status": status, "sid": client_id})
        running = self._state.queue.running
        node_id = self._state.worker.current_node
        if running is not None and running.client_id == client_id and node_id is not None:
            await _send(socket, "executing", {"node": node_id})

    async def _answer_features(
        self, socket: web.WebSocketResponse, client_id: str, text: str
    ) -> None:
        """Answer the client's own features, which only count as its first message."""
        try:
            message = json.loads(text)
        except json.JSONDecodeError:
            return
        if isinstance(message, dict) and message.get("type") == "feature_flags":
            flags = message.get("data")
            if isinstance(flags, dict) and flags.get("supports_preview_metadata"):
                self._state.hub.take_metadata(client_id)
            await _send(socket, "feature_flags", self._state.features)


async def _send(socket: web.WebSocketResponse, event: str, data: dict[str, Any]) -> None:
    await socket.send_str(json.dumps({"type": event, "data": data}))
