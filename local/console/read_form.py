"""The form of a workflow: its fields from the manifest, and a message from what was sent."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from ml_service.domain.errors import MlServiceError
from ml_service.domain.workflows import ChoiceInput, MediaInput, NumberInput, Workflow

_EXTENSION = re.compile(r"\.[a-z0-9]{1,5}")
_EXTENSIONS_OF_KIND: Mapping[str, frozenset[str]] = {
    "image": frozenset({"jpg", "jpeg", "png", "webp"}),
    "video": frozenset({"mp4"}),
    "audio": frozenset({"mp3"}),
}
_MOST_OPTIONS = 12


class FormError(MlServiceError):
    """When a field holds what cannot be sent at all; the service itself checks the rest."""


@dataclass(frozen=True)
class UploadedFile:
    """A file that a browser sent."""

    name: str
    content: IO[bytes]


FormValue = str | UploadedFile


@dataclass(frozen=True)
class Field:
    """How one input is asked for."""

    name: str
    label: str
    kind: str
    """file, text, number or options."""
    hint: str
    default: str = ""
    required: bool = False
    accept: str = ""
    """File name extensions, for a file."""
    minimum: float = 0
    maximum: float | None = None
    max_length: int = 0
    options: tuple[int, ...] = ()


def list_fields(workflow: Workflow) -> list[Field]:
    """Every input of a workflow as a field of its form, in the manifest's order."""
    fields = []
    for name, declared in workflow.inputs.items():
        label = _make_label(name)
        if isinstance(declared, MediaInput):
            extensions = sorted(declared.extensions & _EXTENSIONS_OF_KIND[declared.type])
            fields.append(
                Field(
                    name,
                    label,
                    "file",
                    hint=f"{declared.type}: {', '.join(extensions)}{_tell_need(declared)}",
                    required=declared.absent_name is None,
                    accept=",".join(f".{extension}" for extension in extensions),
                )
            )
        elif isinstance(declared, NumberInput):
            limit = "" if declared.maximum is None else f", at most {declared.maximum:g}"
            zero = "" if declared.zero_means is None else f"; 0 means {declared.zero_means:g}"
            fields.append(
                Field(
                    name,
                    label,
                    "number",
                    hint=f"not negative{limit}{zero}",
                    default=f"{declared.default:g}",
                    maximum=declared.maximum,
                )
            )
        elif isinstance(declared, ChoiceInput):
            fields.append(_make_choice(name, label, declared))
        else:
            fields.append(
                Field(
                    name,
                    label,
                    "text",
                    hint=f"at most {declared.max_length} characters",
                    default=declared.default,
                    max_length=declared.max_length,
                )
            )
    return fields


def read_values(
    workflow: Workflow,
    form: Mapping[str, FormValue],
    *,
    folder: str,
    put_input: Callable[[str, IO[bytes]], None],
) -> dict[str, object]:
    """Turn a sent form into the values of a message; fields left empty are left out.

    Files go to ``put_input`` under keys below ``folder``. Raises FormError.
    """
    values: dict[str, object] = {}
    for name, declared in workflow.inputs.items():
        value = form.get(name, "")
        if isinstance(declared, MediaInput):
            if isinstance(value, UploadedFile):
                values[name] = f"{folder}/{name}{_safe_extension(value.name)}"
                put_input(str(values[name]), value.content)
            continue
        if isinstance(value, UploadedFile):
            raise FormError(f"{_make_label(name)} is no file.")
        if value.strip():
            numeric = isinstance(declared, NumberInput | ChoiceInput)
            values[name] = _read_number(name, value) if numeric else value
    return values


def _make_choice(name: str, label: str, declared: ChoiceInput) -> Field:
    options = tuple(
        option
        for option in range(declared.minimum, declared.maximum + 1)
        if option not in declared.refused
    )
    few = len(options) <= _MOST_OPTIONS
    return Field(
        name,
        label,
        "options" if few else "number",
        hint=f"{declared.minimum} to {declared.maximum}",
        default=str(declared.default),
        minimum=declared.minimum,
        maximum=declared.maximum,
        options=options if few else (),
    )


def _tell_need(declared: MediaInput) -> str:
    if declared.absent_name is None:
        return ""
    when = declared.required_when
    need = f", unless {_make_label(when.input).lower()} is {when.equals}" if when else ""
    return f"; may be left out{need}"


def _make_label(name: str) -> str:
    """Give the words of a camel-case name: promptText is "Prompt text"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", name)
    return words[:1].upper() + words[1:].lower()


def _safe_extension(file_name: str) -> str:
    """Keep of the user's file name only what tells its type."""
    extension = PurePosixPath(file_name).suffix.lower()
    return extension if _EXTENSION.fullmatch(extension) else ""


def _read_number(name: str, text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        raise FormError(f"{_make_label(name)} must be a number.") from None
    return int(number) if number.is_integer() else number
