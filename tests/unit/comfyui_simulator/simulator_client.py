"""A client for tests of the simulator: requests and websocket-client, no code of the project."""

import json
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import requests
import websocket

Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def picture_graph(color: float = 255, prefix: str = "ml", **more: Any) -> Graph:
    """A picture of one colour that is saved; `more` goes into EmptyImage."""
    size = {"width": 64, "height": 64, "batch_size": 1, "color": color} | more
    return {
        "1": node("EmptyImage", **size),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def text_to_image_graph(
    text: str = "a red kite", seed: int = 7, width: int = 96, height: int = 64
) -> Graph:
    """What everybody runs first, of stock nodes, as ComfyUI exports it: with titles."""
    graph = {
        "3": node(
            "KSampler",
            seed=seed,
            steps=20,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=width, height=height, batch_size=1),
        "6": node("CLIPTextEncode", text=text, clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blur", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="kite", images=["8", 0]),
    }
    for item in graph.values():
        item["_meta"] = {"title": item["class_type"]}
    return graph


class Events:
    """What a websocket has received so far."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket

    def send(self, message: dict[str, Any]) -> None:
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        self._socket.send(text)

    def read(self) -> dict[str, Any]:
        """Read a message; a binary one becomes its kind and what it holds."""
        received = self._socket.recv()
        if isinstance(received, bytes):
            return read_binary(received)
        message: dict[str, Any] = json.loads(received)
        return message

    def read_until_done(self, prompt_id: str) -> list[dict[str, Any]]:
        """Read up to and with the message that ends the prompt."""
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1] != done_message(prompt_id):
            messages.append(self.read())
        return messages

    def close(self) -> None:
        self._socket.close()

    def is_silent(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv()
        except websocket.WebSocketTimeoutException:
            return True
        return False


def read_binary(message: bytes) -> dict[str, Any]:
    kind, number = struct.unpack(">II", message[:8])
    if kind == 4:
        metadata = json.loads(message[8 : 8 + number])
        return {"binary": kind, "metadata": metadata, "picture": message[8 + number :]}
    if kind == 3:
        name, text = message[8 : 8 + number].decode(), message[8 + number :].decode()
        return {"binary": kind, "node": name, "text": text}
    return {"binary": kind, "format": number, "picture": message[8:]}


def done_message(prompt_id: str) -> dict[str, Any]:
    return {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}


class SimulatorClient:
    """Talks to one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()

    def get(self, path: str, **more: Any) -> requests.Response:
        return self._session.get(self.url + path, timeout=10, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> requests.Response:
        return self._session.post(self.url + path, json=json, timeout=10, **more)

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        return self._session.request(method, self.url + path, timeout=10, **more)

    def submit(self, graph: Graph, **body: Any) -> str:
        """Post a prompt that is valid and return its id."""
        body = {"client_id": "tests"} | body | {"prompt": graph}
        response = self.post("/prompt", {key: body[key] for key in body if body[key] is not None})
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["node_errors"] == {}
        return str(answer["prompt_id"])

    def await_history(self, prompt_id: str, seconds: float = 10.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry: dict[str, Any] = self.get(f"/history/{quote(prompt_id, safe='')}").json()
            if entry:
                ended: dict[str, Any] = entry[prompt_id]
                return ended
            time.sleep(0.005)
        raise AssertionError(f"{prompt_id} did not end")

    def run(self, graph: Graph, **body: Any) -> dict[str, Any]:
        """Submit a prompt and return its history when it ended."""
        return self.await_history(self.submit(graph, **body))

    def await_running(self, prompt_id: str) -> None:
        for _ in range(1000):
            running = self.get("/queue").json()["queue_running"]
            if any(item[1] == prompt_id for item in running):
                return
            time.sleep(0.005)
        raise AssertionError(f"{prompt_id} did not start")

    def upload(
        self, name: str, content: bytes, kind: str = "image", **fields: str
    ) -> requests.Response:
        files = {"image": (name, content)}
        return self.post(f"/upload/{kind}", files=files, data=fields)

    def download(self, item: dict[str, str]) -> bytes:
        """Return a file that a history lists."""
        response = self.get("/view", params=item)
        assert response.status_code == 200
        return response.content

    @contextmanager
    def events(self, client_id: str, path: str = "/ws") -> Iterator[Events]:
        """Connect a websocket; the greeting is still to be read."""
        address = self.url.replace("http", "ws", 1)
        socket = websocket.create_connection(
            f"{address}{path}?clientId={client_id}", timeout=10, suppress_origin=True
        )
        with closing(socket):
            yield Events(socket)
