"""The simulator's own routes, which no ComfyUI has: faults and runs, under /_simulator."""

import json
from dataclasses import asdict

from aiohttp import web

from local.comfyui.faults import FaultBoard, FaultError, make_fault
from local.comfyui.run_log import RunLog

ADMIN_PREFIX = "/_simulator"


class AdminRoutes:
    """Handlers for an operator or a test; no fault but the server's absence touches them."""

    def __init__(self, faults: FaultBoard, runs: RunLog) -> None:
        self._faults = faults
        self._runs = runs

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their prefix."""
        return [
            web.get(f"{ADMIN_PREFIX}/faults", self.list_faults),
            web.post(f"{ADMIN_PREFIX}/faults", self.add_fault),
            web.delete(f"{ADMIN_PREFIX}/faults", self.clear_faults),
            web.delete(f"{ADMIN_PREFIX}/faults/{{fault_id}}", self.remove_fault),
            web.get(f"{ADMIN_PREFIX}/runs", self.list_runs),
        ]

    async def list_faults(self, _request: web.Request) -> web.Response:
        """Answer all faults and how often each has struck."""
        return web.json_response({"faults": self._faults.list()})

    async def add_fault(self, request: web.Request) -> web.Response:
        """Switch on the fault that the body describes."""
        try:
            fault = make_fault(await request.json())
        except json.JSONDecodeError:
            return _refuse(400, "the body is not JSON")
        except FaultError as error:
            return _refuse(400, str(error))
        return web.json_response(self._faults.add(fault), status=201)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """Switch every fault off."""
        self._faults.clear()
        return web.Response(status=204)

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Switch one fault off."""
        if not self._faults.remove(request.match_info["fault_id"]):
            return _refuse(404, "there is no fault of this id")
        return web.Response(status=204)

    async def list_runs(self, _request: web.Request) -> web.Response:
        """Answer every execution since the simulator was made, over all its restarts."""
        return web.json_response({"runs": [asdict(run) for run in self._runs.read()]})


def _refuse(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
