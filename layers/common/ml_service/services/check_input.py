"""The guard between S3 and an instance: an input is uploaded only once its head was looked at."""

import io
from typing import BinaryIO, cast

from ml_service.domain.inputs import MediaSource
from ml_service.domain.media import HEAD_BYTES, check_head, check_size
from ml_service.ports import MediaStream


def check_input(source: MediaSource, stream: MediaStream) -> MediaStream:
    """The same object from its first byte on, if it is what it should be.

    No more of it than the head is read, and kept in memory.
    Raises InputTooLargeError, UnsupportedMediaError.
    """
    check_size(source, stream.size)
    head = stream.content.read(HEAD_BYTES)
    check_head(source, head)
    return MediaStream(cast(BinaryIO, _Rejoined(head, stream.content)), stream.size)


class _Rejoined:
    """What was read of a stream, and after it the rest: S3's streams cannot go back."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Read on; like any stream, to the end if the size is negative."""
        data = self._head.read(size)
        missing = size if size < 0 else size - len(data)
        return data + self._rest.read(missing) if missing else data
