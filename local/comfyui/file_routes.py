"""Routes that bring files to the server and take them away: /upload/image, /upload/mask, /view."""

import asyncio
import contextlib
import hashlib
import io
import json
import mimetypes
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.web_request import FileField
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from local.comfyui.media_folders import (
    FOLDER_TYPES,
    INPUT,
    OUTPUT,
    MediaFolders,
    OutsideFolderError,
    split_annotation,
)

_OVERWRITE_VALUES = ("true", "1")

# What a browser would run is sent as plain bytes.
_UNSAFE_TYPES = (
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "application/javascript",
    "text/css",
)
_BYTES_TYPE = "application/octet-stream"

_DEFAULT_QUALITY = 90
_CHUNK_BYTES = 1024 * 1024

_Form = Mapping[str, str | bytes | bytearray | FileField]
# Writes an upload to the path that it is given.
_Write = Callable[[IO[bytes], Path], None]


class _NoFileError(Exception):
    """When no file can be read; `status` is what /view answers."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class FileRoutes:
    """Handlers for the files of the three media folders."""

    def __init__(self, folders: MediaFolders) -> None:
        self._folders = folders

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/upload/image", self.upload_image),
            web.post("/upload/mask", self.upload_mask),
            web.get("/view", self.view),
        ]

    async def upload_image(self, request: web.Request) -> web.Response:
        """Store an uploaded file of any kind; the answer's name may differ from the one sent."""
        return await self._upload(await request.post(), _write_file)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store the colours of an earlier file with the uploaded mask's transparency.

        Nothing is stored when the original is not there, which the answer does not tell.
        """
        form = await request.post()

        def write_masked(file: IO[bytes], path: Path) -> None:
            with contextlib.suppress(_NoFileError):
                original = self._find_file(json.loads(str(form["original_ref"])))
                _write_masked(file, original, path)

        return await self._upload(form, write_masked)

    async def _upload(self, form: _Form, write: _Write) -> web.Response:
        upload = form.get("image")
        if not upload:
            return web.Response(status=400)
        if not isinstance(upload, FileField):
            # ComfyUI trips over text in place of a file.
            raise TypeError("the image field is no file")
        folder_type = str(form.get("type", INPUT))
        subfolder = str(form.get("subfolder", ""))
        is_overwrite = form.get("overwrite") in _OVERWRITE_VALUES
        if not upload.filename:
            return web.Response(status=400)
        try:
            folder = self._folders.resolve(folder_type, subfolder, "")
            self._folders.resolve(folder_type, subfolder, upload.filename)
        except OutsideFolderError:
            return web.Response(status=400)
        name = await asyncio.to_thread(_store, upload, folder, write, is_overwrite)
        return web.json_response({"name": name, "subfolder": subfolder, "type": folder_type})

    async def view(self, request: web.Request) -> web.StreamResponse:
        """Answer a file, or a smaller preview, or some of its channels."""
        try:
            path = self._find_file(request.query)
        except _NoFileError as error:
            return web.Response(status=error.status)
        headers = {"Content-Disposition": f'filename="{path.name}"'}
        if "preview" in request.query:
            body, content_type = await asyncio.to_thread(
                _render_preview, path, request.query["preview"]
            )
            return web.Response(body=body, content_type=content_type, headers=headers)
        channel = request.query.get("channel")
        if channel in ("rgb", "a"):
            body = await asyncio.to_thread(_render_channel, path, channel)
            return web.Response(body=body, content_type="image/png", headers=headers)
        content_type = mimetypes.guess_type(path.name)[0] or _BYTES_TYPE
        if content_type in _UNSAFE_TYPES:
            content_type = _BYTES_TYPE
        return web.FileResponse(path, headers=headers | {"Content-Type": content_type})

    def _find_file(self, query: Mapping[str, str]) -> Path:
        if "filename" not in query:
            raise _NoFileError(404)
        name, annotated_type = split_annotation(query["filename"])
        folder_type = annotated_type or query.get("type", OUTPUT)
        if not name or name.startswith("/") or ".." in name or folder_type not in FOLDER_TYPES:
            raise _NoFileError(400)
        try:
            path = self._folders.resolve(folder_type, query.get("subfolder", ""), Path(name).name)
        except OutsideFolderError as error:
            raise _NoFileError(403) from error
        if not path.is_file():
            raise _NoFileError(404)
        return path


def _store(upload: FileField, folder: Path, write: _Write, is_overwrite: bool) -> str:
    """Write an upload and return its name: a new one, unless the file of that name is equal.

    A name with folders needs them to be there, as on a real server: only `folder` is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = upload.filename
    if not is_overwrite:
        # Not of a Path: this stem keeps the folders of the name.
        stem, extension = os.path.splitext(name)
        digest = _hash(upload.file)
        number = 1
        while (folder / name).exists():
            with (folder / name).open("rb") as existing:
                if _hash(existing) == digest:
                    return name
            name = f"{stem} ({number}){extension}"
            number += 1
    upload.file.seek(0)
    write(upload.file, folder / name)
    return name


def _write_file(file: IO[bytes], path: Path) -> None:
    with path.open("wb") as written:
        shutil.copyfileobj(file, written)


def _hash(file: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()


def _write_masked(file: IO[bytes], original_path: Path, path: Path) -> None:
    with Image.open(original_path) as original, Image.open(file) as mask:
        result = original.convert("RGBA")
        result.putalpha(mask.convert("RGBA").getchannel("A"))
        metadata = PngInfo()
        for key, value in getattr(original, "text", {}).items():
            metadata.add_text(key, value)
        result.save(path, compress_level=4, pnginfo=metadata)


def _render_preview(path: Path, wanted: str) -> tuple[bytes, str]:
    """Return a picture as webp or jpeg; `wanted` is such as `webp;50`."""
    image_format, _, quality = wanted.partition(";")
    if image_format not in ("webp", "jpeg"):
        image_format = "webp"
    buffer = io.BytesIO()
    with Image.open(path) as image:
        shown = image.convert("RGB") if image_format == "jpeg" else image
        shown.save(
            buffer,
            format=image_format,
            quality=int(quality) if quality.isdigit() else _DEFAULT_QUALITY,
        )
    return buffer.getvalue(), f"image/{image_format}"


def _render_channel(path: Path, channel: str) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        if channel == "rgb":
            shown = image.convert("RGB")
        else:
            shown = Image.new("RGBA", image.size)
            shown.putalpha(image.convert("RGBA").getchannel("A"))
        shown.save(buffer, format="PNG")
    return buffer.getvalue()
