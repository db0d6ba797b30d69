"""The part of Lambda's API that shows event source mappings and switches them on and off."""

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from local.aws.event_rules import ACCOUNT_ID
from local.aws.event_sources import QueuePoller

_PATH: Final = "/2015-03-31/event-source-mappings"


class MappingRoutes:
    """The event source mappings of an account, by their ids, and the routes that lead to them."""

    def __init__(self, region: str) -> None:
        """Begin with none."""
        self._region = region
        self._pollers: dict[str, QueuePoller] = {}

    def add(self, mapping_id: str, poller: QueuePoller) -> None:
        """Make a mapping known."""
        self._pollers[mapping_id] = poller

    def list_routes(self) -> Sequence[web.RouteDef]:
        """What a server has to answer."""
        return [web.get(_PATH, self._list), web.put(_PATH + "/{id}", self._update)]

    async def _list(self, request: web.Request) -> web.Response:
        wanted = request.query.get("FunctionName", "").rpartition(":")[2]
        found = [
            self._describe(mapping_id)
            for mapping_id, poller in self._pollers.items()
            if wanted in ("", poller.mapping.function_name)
        ]
        return web.json_response({"EventSourceMappings": found})

    async def _update(self, request: web.Request) -> web.Response:
        mapping_id = request.match_info["id"]
        if mapping_id not in self._pollers:
            return web.json_response(
                {"Type": "User", "Message": "The resource you requested does not exist."},
                status=404,
                headers={"X-Amzn-ErrorType": "ResourceNotFoundException"},
            )
        change = await request.json()
        if change.keys() != {"Enabled"}:
            return web.json_response(
                {"Type": "User", "Message": "Only Enabled can be changed here."},
                status=400,
                headers={"X-Amzn-ErrorType": "InvalidParameterValueException"},
            )
        self._pollers[mapping_id].switch(enabled=change["Enabled"])
        return web.json_response(self._describe(mapping_id), status=202)

    def _describe(self, mapping_id: str) -> dict[str, Any]:
        poller = self._pollers[mapping_id]
        name = poller.mapping.function_name
        return {
            "UUID": mapping_id,
            "EventSourceArn": poller.mapping.queue_arn,
            "FunctionArn": f"arn:aws:lambda:{self._region}:{ACCOUNT_ID}:function:{name}",
            "BatchSize": poller.mapping.batch_size,
            "State": poller.state,
        }
