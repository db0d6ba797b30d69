"""A process of its own that moves a large file and prints by how many bytes its memory grew.

Arguments: upload or download, the port of the server, and the size of the file in bytes.
"""

import sys
from pathlib import Path
from typing import BinaryIO, cast

import boto3
from botocore.config import Config

from ml_service.adapters.comfyui import HttpComfyUI
from ml_service.adapters.s3 import S3MediaStore
from ml_service.domain.results import OutputFile
from ml_service.ports import MediaStream


class Zeros:
    """A stream of so many bytes that takes no memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        count = self._left if size < 0 else min(size, self._left)
        self._left -= count
        return bytes(count)


def peak_bytes() -> int:
    """The most memory that this process ever had; its parent's is not counted in."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def upload(port: int, size: int) -> None:
    content = cast(BinaryIO, Zeros(size))
    HttpComfyUI(f"127.0.0.1:{port}").upload("a.mp4", MediaStream(content, size))


def download(port: int, size: int) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106
        config=Config(s3={"addressing_style": "path"}),
    )
    store = S3MediaStore(client, result_bucket="results")
    with HttpComfyUI(f"127.0.0.1:{port}").open_output(OutputFile(filename=f"{size}.mp4")) as file:
        store.put_result("a.mp4", file, content_type="video/mp4")


def main() -> None:
    move = {"upload": upload, "download": download}[sys.argv[1]]
    port, size = int(sys.argv[2]), int(sys.argv[3])
    move(port, 2**16)  # now all modules are loaded
    before = peak_bytes()
    move(port, size)
    sys.stdout.write(str(peak_bytes() - before))


if __name__ == "__main__":
    main()
