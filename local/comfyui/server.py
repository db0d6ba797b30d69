"""The web application: all routes, with and without /api, and what every request passes."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from local.comfyui.admin_routes import AdminRoutes
from local.comfyui.file_routes import FileRoutes
from local.comfyui.info_routes import InfoRoutes
from local.comfyui.job_routes import JobRoutes
from local.comfyui.prompt_routes import PromptRoutes
from local.comfyui.server_state import ServerState
from local.comfyui.websocket_routes import WebsocketRoutes

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_logger = logging.getLogger(__name__)


def build_application(state: ServerState) -> web.Application:
    """Return the application of one server."""
    application = web.Application(
        client_max_size=state.max_request_bytes,
        middlewares=[answer_errors, state.faults.middleware, refuse_other_origins],
    )
    routes = [
        *PromptRoutes(state).routes(),
        *FileRoutes(state.folders).routes(),
        *InfoRoutes(state).routes(),
        *WebsocketRoutes(state).routes(),
    ]
    application.add_routes(routes)
    application.add_routes(
        web.RouteDef(route.method, f"/api{route.path}", route.handler, route.kwargs)
        for route in routes
    )
    application.add_routes(JobRoutes(state).routes())
    application.add_routes(AdminRoutes(state.faults.board, state.runs).routes())
    return application


@web.middleware
async def answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer as ComfyUI does where a path is unknown, a body too large, or a handler fails.

    aiohttp would log the failure's text, which can quote a prompt.
    """
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(status=404, content_type="application/octet-stream")
    except web.HTTPException:
        raise
    except Exception as error:  # noqa: BLE001
        resource = request.match_info.route.resource
        route = "an unknown route" if resource is None else resource.canonical
        # Without its text, which may quote a prompt.
        _logger.warning("%s %s failed: %s", request.method, route, type(error).__name__)
        text = "500 Internal Server Error\n\nServer got itself in trouble"
        return web.Response(status=500, text=text)


@web.middleware
async def refuse_other_origins(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse a browser page of another host, where the server is addressed by a loopback name.

    Ports count only where both name one. Whatever else asks for its options gets an empty answer.
    """
    host = urlsplit(f"//{request.headers.get('Host', '').lower()}")
    origin = urlsplit(request.headers.get("Origin", "").lower())
    if origin.netloc and _is_loopback(host.hostname):
        have_ports = origin.port is not None and host.port is not None
        if origin.hostname != host.hostname or (have_ports and origin.port != host.port):
            return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


def _is_loopback(hostname: str | None) -> bool:
    if hostname is None:
        return False
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"
