"""Routes that post, watch and cancel prompts: /prompt, /queue, /history, /interrupt, /free."""

import json
import time
from typing import Any

from aiohttp import web

from local.comfyui.prompt_ids import InvalidPromptIdError
from local.comfyui.prompt_queue import QueuedPrompt
from local.comfyui.server_state import ServerState
from local.comfyui.validation import invalid_prompt_id_error, no_prompt_error

# Values that nodes may need but that no answer shows.
SECRET_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")


def queue_info(remaining: int) -> dict[str, Any]:
    """Return the number of waiting and running prompts in ComfyUI's form."""
    return {"exec_info": {"queue_remaining": remaining}}


class PromptRoutes:
    """Handlers as careless as ComfyUI's: a body that they trip over gets status 500."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/prompt", self.get_prompt),
            web.post("/prompt", self.post_prompt),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.post_queue),
            web.get("/history", self.get_history),
            web.get("/history/{prompt_id}", self.get_history_entry),
            web.post("/history", self.post_history),
            web.post("/interrupt", self.post_interrupt),
            web.post("/free", self.post_free),
        ]

    async def get_prompt(self, _request: web.Request) -> web.Response:
        """Answer the number of waiting and running prompts."""
        return web.json_response(queue_info(self._state.queue.remaining))

    async def post_prompt(self, request: web.Request) -> web.Response:
        """Validate a prompt and queue it."""
        body = await request.json()
        if "number" in body:
            number: int | float = float(body["number"])
        else:
            count = self._state.next_number()
            is_front = "front" in body and body["front"]
            number = -count if is_front else count
        if "prompt" not in body:
            return _refuse(no_prompt_error(), {})
        prompt = body["prompt"]
        try:
            prompt_id = self._state.profile.read_prompt_id(body)
        except InvalidPromptIdError:
            return _refuse(invalid_prompt_id_error(), {})
        checked = self._state.validator.validate(prompt, body.get("partial_execution_targets"))
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if checked.error is not None:
            return _refuse(checked.error, checked.node_errors)
        secrets = {key: extra_data.pop(key) for key in SECRET_KEYS if key in extra_data}
        extra_data["create_time"] = int(time.time() * 1000)
        self._state.queue.put(
            QueuedPrompt(number, prompt_id, prompt, extra_data, checked.outputs, secrets)
        )
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": checked.node_errors}
        )

    async def get_queue(self, _request: web.Request) -> web.Response:
        """Answer the running prompt and the pending ones, in heap order."""
        running, pending = self._state.queue.read()
        return web.json_response(
            {
                "queue_running": [item.shown() for item in running],
                "queue_pending": [item.shown() for item in pending],
            }
        )

    async def post_queue(self, request: web.Request) -> web.Response:
        """Drop pending prompts: all, or those of a list of ids."""
        body = await request.json()
        if "clear" in body and body["clear"]:  # noqa: RUF019 (a list has no get)
            self._state.queue.clear()
        if "delete" in body:
            self._state.queue.delete(body["delete"])
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        """Answer the ended prompts."""
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", -1))
        entries = self._state.queue.read_history(
            None if max_items is None else int(max_items), offset
        )
        return web.json_response(entries)

    async def get_history_entry(self, request: web.Request) -> web.Response:
        """Answer one ended prompt; {} for an unknown one, a pending one and a running one alike."""
        prompt_id = request.match_info["prompt_id"]
        entry = self._state.queue.read_history_entry(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def post_history(self, request: web.Request) -> web.Response:
        """Forget ended prompts: all, or those of a list of ids."""
        body = await request.json()
        if "clear" in body and body["clear"]:  # noqa: RUF019 (a list has no get)
            self._state.queue.clear_history()
        if "delete" in body:
            self._state.queue.delete_history(body["delete"])
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """Cancel the running prompt; with a prompt id only if it is that one."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        running = self._state.queue.running
        if not prompt_id or (running is not None and running.prompt_id == prompt_id):
            self._state.worker.interrupt()
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        """Empty the cache between prompts; there are no models to unload."""
        body = await request.json()
        if body.get("free_memory", False):
            self._state.queue.request_free_memory()
        return web.Response()


def _refuse(error: dict[str, Any], node_errors: dict[str, Any]) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors}, status=400)
