"""What a finished prompt left: which files count, their keys in S3, and what each one is."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from ml_service.domain.errors import OutputInvalidError, OutputMissingError
from ml_service.domain.manifests import Conversion, OutputRole

RESULT_PREFIX = "comfyui-results/"

_CONTENT_TYPES: Mapping[str, str] = {
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".m4a": "audio/mp4",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".png": "image/png",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
}
_STILL_PICTURES = frozenset({"image/jpeg", "image/png", "image/webp"})
_UNSAFE_NAME = re.compile(r"[\x00-\x1f\x7f/\\]")


class OutputFile(BaseModel):
    """A file that a prompt saved, as its instance names it."""

    model_config = ConfigDict(frozen=True)

    filename: str
    subfolder: str = ""

    @property
    def key(self) -> str:
        """Its key in the result bucket: the file name alone, whatever the subfolder."""
        return RESULT_PREFIX + self.filename

    @property
    def content_type(self) -> str:
        """The media type that its extension stands for."""
        return read_content_type(self.filename)

    def needs_conversion(self, conversion: Conversion) -> bool:
        """Whether it is a still picture of another format; what moves is stored as it is."""
        wanted = f"image/{conversion.format}"
        return is_still_picture(self.content_type) and self.content_type != wanted


def read_content_type(name: str) -> str:
    """The media type that a file name's extension stands for."""
    suffix = PurePosixPath(name).suffix.lower()
    return _CONTENT_TYPES.get(suffix, "application/octet-stream")


def is_still_picture(content_type: str) -> bool:
    """Whether files of a media type can be converted into another format of picture."""
    return content_type in _STILL_PICTURES


def make_result_keys(files: Sequence[OutputFile], conversion: Conversion | None) -> tuple[str, ...]:
    """The key of each file in the result bucket; raises OutputInvalidError if two would be one."""
    keys = tuple(
        str(PurePosixPath(file.key).with_suffix(f".{conversion.format}"))
        if conversion is not None and file.needs_conversion(conversion)
        else file.key
        for file in files
    )
    if len(set(keys)) != len(keys):
        raise OutputInvalidError("Two outputs have the same name but for their formats.")
    return keys


def list_output_files(
    outputs: Mapping[str, Mapping[str, Sequence[object]]],
) -> tuple[OutputFile, ...]:
    """Every saved file in ComfyUI's outputs, under whatever key a node lists it.

    Previews (type temp) and inputs shown again are left out. Raises OutputMissingError if nothing
    is left, OutputInvalidError for a name or folder that is not one.
    """
    files: dict[OutputFile, None] = {}
    for kinds in outputs.values():
        for entries in kinds.values():
            for entry in entries:
                if not isinstance(entry, Mapping) or "filename" not in entry:
                    continue
                if entry.get("type", "output") in ("temp", "input"):
                    continue
                files[_check_file(entry)] = None
    if not files:
        raise OutputMissingError("The prompt succeeded but saved no file.")
    if len({file.key for file in files}) != len(files):
        raise OutputInvalidError("Two outputs in different folders have the same name.")
    return tuple(files)


def assign_roles(
    keys: Sequence[str], patterns: Mapping[OutputRole, str], *, output_prefix: str
) -> Mapping[OutputRole, str]:
    """Which key is which to the backend: a single one is the main one, several go by pattern.

    The pattern is looked for behind the output prefix, since an input may itself be named after a
    role: results are often inputs of the next job. A role without a file is left out.
    """
    if len(keys) == 1:
        return {OutputRole.MAIN: keys[0]}
    roles: dict[OutputRole, str] = {}
    for role, pattern in patterns.items():
        for key in keys:
            if pattern in key.removeprefix(RESULT_PREFIX + output_prefix):
                roles.setdefault(role, key)
    return roles


def _check_file(entry: Mapping[object, object]) -> OutputFile:
    filename, subfolder = entry["filename"], entry.get("subfolder", "")
    if entry.get("type", "output") != "output":
        raise OutputInvalidError("An output is of an unknown type.")
    if (
        not isinstance(filename, str)
        or not filename
        or filename in (".", "..")
        or len(filename.encode()) > 255
        or _UNSAFE_NAME.search(filename)
    ):
        raise OutputInvalidError("An output's name cannot be a file name.")
    if not isinstance(subfolder, str) or subfolder.startswith(("/", "\\")) or ".." in subfolder:
        raise OutputInvalidError("An output's folder is not inside the output folder.")
    return OutputFile(filename=filename, subfolder=subfolder)
