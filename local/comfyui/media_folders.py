"""The server's three media folders: where a file lies, and how the next one is called."""

import mimetypes
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from local.comfyui.node_types import MediaKind

INPUT = "input"
OUTPUT = "output"
TEMP = "temp"
FOLDER_TYPES = (INPUT, OUTPUT, TEMP)

# ComfyUI lists videos as audio inputs too: their sound track can be taken.
_LISTED_KINDS = {
    MediaKind.IMAGE: ("image",),
    MediaKind.AUDIO: ("audio", "video"),
    MediaKind.VIDEO: ("video",),
}

# Python knows no type for webp before 3.13, on a machine without a mime.types file.
mimetypes.add_type("image/webp", ".webp")


class OutsideFolderError(Exception):
    """When a file name or subfolder leads out of the media folder it is for."""


@dataclass(frozen=True)
class NewFile:
    """The place of the next file of a prefix: its folder, base name, counter and subfolder."""

    folder: Path
    base_name: str
    counter: int
    subfolder: str

    def name(self, extension: str, offset: int = 0) -> str:
        """Return the file name, `offset` files after the first of a batch."""
        batch_name = self.base_name.replace("%batch_num%", str(offset))
        return f"{batch_name}_{self.counter + offset:05}_.{extension}"

    def listed(self, name: str, folder_type: str) -> dict[str, str]:
        """Return a file of this place as ComfyUI lists it among a node's outputs."""
        return {"filename": name, "subfolder": self.subfolder, "type": folder_type}


class MediaFolders:
    """The folders input, output and temp of one server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def prepare(self) -> None:
        """Make the folders; what temp held from an earlier start is removed, as ComfyUI does."""
        shutil.rmtree(self.folder(TEMP), ignore_errors=True)
        for folder_type in FOLDER_TYPES:
            self.folder(folder_type).mkdir(parents=True, exist_ok=True)

    def folder(self, folder_type: str) -> Path:
        """Return the folder of a type. Raises KeyError for an unknown type."""
        if folder_type not in FOLDER_TYPES:
            raise KeyError(folder_type)
        return self.directory / folder_type

    def resolve(self, folder_type: str, subfolder: str, name: str) -> Path:
        """Return the path of a file. Raises OutsideFolderError and KeyError."""
        folder = self.folder(folder_type)
        path = (folder / subfolder / name).resolve()
        if not path.is_relative_to(folder):
            raise OutsideFolderError
        return path

    def input_path(self, annotated_name: str) -> Path:
        """Return the path of a loader node's value, such as `photo.png` or `sub/clip.mp4 [output]`.

        Raises OutsideFolderError.
        """
        name, folder_type = split_annotation(annotated_name)
        return self.resolve(folder_type or INPUT, "", name)

    def has_input(self, annotated_name: object) -> bool:
        """Tell whether a loader node's value names a file that is there."""
        if not isinstance(annotated_name, str):
            return False
        try:
            return self.input_path(annotated_name).is_file()
        except (OutsideFolderError, OSError, ValueError):
            # The name leads outside, is too long, or cannot be a name at all.
            return False

    def list_inputs(self, kind: MediaKind) -> list[str]:
        """Return the names of the input folder's own files of a kind, sorted."""
        return sorted(
            path.name
            for path in self.folder(INPUT).iterdir()
            if path.is_file() and _media_type(path).split("/")[0] in _LISTED_KINDS[kind]
        )

    def next_file(
        self, folder_type: str, prefix: str, now: datetime, size: tuple[int, int] = (0, 0)
    ) -> NewFile:
        """Return the place for the next file of a prefix, counted on from the files there.

        `prefix` may hold subfolders and ComfyUI's variables. Raises OutsideFolderError.
        """
        filled = Path(_fill_variables(prefix, now, size))
        path = self.resolve(folder_type, str(filled.parent), filled.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        subfolder = path.parent.relative_to(self.folder(folder_type)).as_posix()
        counters = (_read_counter(other.name, path.name) for other in path.parent.iterdir())
        return NewFile(
            path.parent,
            path.name,
            max(counters, default=0) + 1,
            "" if subfolder == "." else subfolder,
        )


def split_annotation(name: str) -> tuple[str, str | None]:
    """Split ComfyUI's `name [folder]` into name and folder type, None where none is named."""
    for folder_type in FOLDER_TYPES:
        suffix = f" [{folder_type}]"
        if name.endswith(suffix):
            return name.removesuffix(suffix), folder_type
    return name, None


def _media_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or ""


def _read_counter(name: str, base_name: str) -> int:
    """Return the counter in `name` if it is a numbered file of this base name, else 0."""
    if not name.startswith(f"{base_name}_"):
        return 0
    digits = name[len(base_name) + 1 :].split("_", maxsplit=1)[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _fill_variables(prefix: str, now: datetime, size: tuple[int, int]) -> str:
    values = {
        "width": str(size[0]),
        "height": str(size[1]),
        "year": str(now.year),
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix
