"""Files on their way to and from an instance, read piece by piece."""

from typing import BinaryIO, cast

import requests
import urllib3

from ml_service.adapters.comfyui.call_instance import explain_failure
from ml_service.domain.errors import InstanceSilentError
from ml_service.ports import MediaStream


class UploadStream:
    """A stream in the form that the multipart encoder reads: ``len`` is what is left."""

    def __init__(self, media: MediaStream) -> None:
        self._content = media.content
        self.len = media.size

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._content.read(size)
        self.len -= len(data)
        return data


class DownloadStream:
    """The body of an answer; a connection that breaks is an error, never the end of the file."""

    def __init__(self, response: requests.Response, call: str) -> None:
        self._response = response
        self._call = call

    def read(self, size: int = -1) -> bytes:
        """Read on; raises InstanceUnreachableError."""
        try:
            return cast(bytes, self._response.raw.read(None if size < 0 else size))
        except urllib3.exceptions.ReadTimeoutError:
            raise InstanceSilentError(f"{self._call}: ReadTimeout") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise explain_failure(self._call, error) from None

    def as_file(self) -> BinaryIO:
        """Itself, as what it stands for: its readers use ``read`` alone."""
        return cast(BinaryIO, self)
