"""The watch over ComfyUI's websocket, on a server that a test speaks through."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from ml_service.adapters.comfyui.watch_prompt import WebsocketPromptWatch
from ml_service.domain.prompts import Progress

Speak = Callable[[web.WebSocketResponse], Awaitable[None]]
STATUS = {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1}}}}


class SpeakingServer:
    """Says to each connection what the test wants, then listens until it closes."""

    def __init__(self, *speeches: Speak) -> None:
        self.url = ""
        self.client_ids: list[str] = []
        self.has_heard_goodbye = threading.Event()
        self._speeches = list(speeches)

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.client_ids.append(request.query["clientId"])
        assert "Origin" not in request.headers
        if self._speeches:
            await self._speeches.pop(0)(socket)
        async for message in socket:
            assert message.type is not WSMsgType.ERROR
        if socket.close_code == 1000:
            self.has_heard_goodbye.set()
        return socket

    @contextmanager
    def serving(self) -> Iterator["SpeakingServer"]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        application = web.Application()
        application.add_routes([web.get("/ws", self.connect)])
        runner = web.AppRunner(application, shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()

        asyncio.run_coroutine_threadsafe(start(), loop).result()
        self.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def says(*messages: dict[str, Any] | str | bytes) -> Speak:
    async def speak(socket: web.WebSocketResponse) -> None:
        for message in messages:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(message if isinstance(message, str) else json.dumps(message))

    return speak


async def hangs_up(socket: web.WebSocketResponse) -> None:
    await socket.close()


async def breaks(socket: web.WebSocketResponse) -> None:
    assert socket._req is not None
    transport = socket._req.transport
    assert transport is not None
    transport.abort()


@contextmanager
def watching(server: SpeakingServer, prompt_id: str) -> Iterator[WebsocketPromptWatch]:
    watch = WebsocketPromptWatch(server.url, prompt_id, connect_seconds=1)
    try:
        yield watch
    finally:
        watch.close()


def seconds_waited(watch: WebsocketPromptWatch, seconds: float) -> float:
    started = time.monotonic()
    watch.wait(seconds)
    return time.monotonic() - started


ME = "6f89638b-cc12-4e62-a2a8-3dfffef2a027"
OTHER = "0e8a3f0a-6f5c-4c1b-9e57-1d2f6a1c9b11"


@pytest.mark.parametrize(
    "message",
    [
        STATUS,
        {"type": "execution_start", "data": {"prompt_id": ME}},
        {"type": "executing", "data": {"node": None, "prompt_id": ME}},
        {"type": "execution_error", "data": {"prompt_id": ME}},
        {"type": "execution_interrupted", "data": {"prompt_id": ME}},
    ],
    ids=lambda message: message["type"],
)
def test_news_ends_a_wait(message: dict[str, Any]):
    with SpeakingServer(says(message)).serving() as server, watching(server, ME) as watch:
        assert seconds_waited(watch, 5) < 1


@pytest.mark.parametrize(
    "message",
    [
        # Comes before the history is written; that the prompt is over is said afterwards.
        {"type": "execution_success", "data": {"prompt_id": ME}},
        {"type": "executing", "data": {"node": "3", "prompt_id": ME}},
        {"type": "executing", "data": {"node": "3"}},
        {"type": "executing", "data": {"node": None, "prompt_id": OTHER}},
        {"type": "execution_error", "data": {"prompt_id": OTHER}},
        {"type": "progress_state", "data": {"prompt_id": OTHER, "nodes": 7}},
        {"type": "progress_state", "data": {"prompt_id": ME, "nodes": [7]}},
        b"\x00\x00\x00\x01\x00\x00\x00\x02preview",
        "no JSON",
        "[]",
        '{"type": "execution_error"}',
    ],
    ids=repr,
)
def test_what_is_no_news_does_not_end_a_wait(message: dict[str, Any] | str | bytes):
    with SpeakingServer(says(message)).serving() as server, watching(server, ME) as watch:
        assert 0.2 <= seconds_waited(watch, 0.2) < 1
        assert watch.progress is None


def test_progress_is_kept_while_waiting():
    nodes = {
        "1": {"state": "finished", "value": 1, "max": 1},
        "2": {"state": "running", "value": 3, "max": 4},
    }
    message = {"type": "progress_state", "data": {"prompt_id": ME, "nodes": nodes}}
    with SpeakingServer(says(message)).serving() as server, watching(server, ME) as watch:
        watch.wait(0.2)
        assert watch.progress == Progress(nodes_done=1, node_id="2", share=0.75)


@pytest.mark.parametrize("ends", [hangs_up, breaks])
def test_a_connection_that_ends_is_made_again_under_a_fresh_id(ends: Speak):
    server = SpeakingServer(ends, says(STATUS))
    with server.serving(), watching(server, ME) as watch:
        # The new connection's own status is the reason to look: something may have been missed.
        assert seconds_waited(watch, 5) < 2
    assert server.client_ids[0] == ME
    assert len(server.client_ids) == len(set(server.client_ids)) == 2


def test_a_server_that_always_hangs_up_is_not_flooded():
    server = SpeakingServer(*[hangs_up] * 100)
    with server.serving(), watching(server, ME) as watch:
        assert 1.2 <= seconds_waited(watch, 1.2) < 2
    assert len(server.client_ids) <= 4


def test_a_watch_says_goodbye_so_that_its_id_is_free_again():
    server = SpeakingServer()
    with server.serving():
        with watching(server, ME):
            pass
        assert server.has_heard_goodbye.wait(2)


def test_waiting_without_a_server_is_only_waiting():
    watch = WebsocketPromptWatch("ws://127.0.0.1:9/ws", ME, connect_seconds=1)
    assert 0.2 <= seconds_waited(watch, 0.2) < 1
    watch.close()
