"""The form of a workflow: its fields from the manifest, and a message from what was sent."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from ml_service.domain.errors import MlServiceError
from ml_service.domain.input_values import ValueInput
from ml_service.domain.manifests import (
    BooleanInput,
    EnumInput,
    IntegerInput,
    ListInput,
    MediaInput,
    NumberInput,
    TextInput,
    Workflow,
)

_EXTENSION = re.compile(r"\.[a-z0-9]{1,5}")
_EXTENSIONS_OF_KIND: Mapping[str, frozenset[str]] = {
    "image": frozenset({"jpg", "jpeg", "png", "webp"}),
    "video": frozenset({"mp4"}),
    "audio": frozenset({"mp3"}),
}
_MOST_OPTIONS = 12
_TRUTHS = ("true", "false")
_LONGEST_LIST_TEXT = 10_000


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
    minimum: float | None = 0
    maximum: float | None = None
    max_length: int = 0
    options: tuple[int | str, ...] = ()


def list_fields(workflow: Workflow) -> list[Field]:
    """Every input of a workflow as a field of its form, in the manifest's order."""
    return [_make_field(name, declared) for name, declared in workflow.inputs.items()]


def _make_field(name: str, declared: MediaInput | ValueInput) -> Field:
    label = _make_label(name)
    match declared:
        case MediaInput():
            extensions = sorted(declared.extensions & _EXTENSIONS_OF_KIND[declared.type])
            return Field(
                name,
                label,
                "file",
                hint=f"{declared.type}: {', '.join(extensions)}{_tell_need(declared)}",
                required=declared.absent_name is None,
                accept=",".join(f".{extension}" for extension in extensions),
            )
        case TextInput():
            return Field(
                name,
                label,
                "text",
                hint=f"at most {declared.max_length} characters",
                default=declared.default or "",
                required=declared.default is None,
                max_length=declared.max_length,
            )
        case IntegerInput():
            return _make_choice(name, label, declared)
        case NumberInput():
            return _make_number(name, label, declared)
        case BooleanInput() | EnumInput():
            return _make_options(name, label, declared)
        case ListInput():
            lines = "\n".join(map(str, declared.default or ()))
            hint = f"one {declared.of} on each line, at most {declared.max_items}"
            return Field(
                name,
                label,
                "text",
                hint=hint,
                default=lines,
                required=declared.default is None,
                max_length=_LONGEST_LIST_TEXT,
            )


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
            values[name] = _read_field(name, declared, value)
    return values


def _read_field(name: str, declared: ValueInput, text: str) -> object:
    match declared:
        case NumberInput() | IntegerInput():
            return _read_number(name, text)
        case BooleanInput():
            return text == "true"
        case ListInput():
            lines = [line for line in text.splitlines() if line.strip()]
            return lines if declared.of == "text" else [_read_number(name, line) for line in lines]
        case _:
            return text


def _make_options(name: str, label: str, declared: BooleanInput | EnumInput) -> Field:
    options = _TRUTHS if isinstance(declared, BooleanInput) else declared.values
    default = options[0] if declared.default is None else str(declared.default)
    if isinstance(declared, BooleanInput):
        default = default.lower()
    hint = f"one of {len(options)}"
    return Field(name, label, "options", hint=hint, default=default, options=options)


def _make_number(name: str, label: str, declared: NumberInput) -> Field:
    low, high = declared.minimum, declared.maximum
    hints = [
        "" if low is None else "not negative" if low == 0 else f"at least {low:g}",
        "" if high is None else f"at most {high:g}",
    ]
    zero = "" if declared.zero_means is None else f"; 0 means {declared.zero_means:g}"
    return Field(
        name,
        label,
        "number",
        hint=", ".join(filter(None, hints)) + zero,
        default="" if declared.default is None else f"{declared.default:g}",
        required=declared.default is None,
        minimum=low,
        maximum=high,
    )


def _make_choice(name: str, label: str, declared: IntegerInput) -> Field:
    low, high = declared.minimum, declared.maximum
    default = "" if declared.default is None else str(declared.default)
    if low is None or high is None:
        return Field(
            name,
            label,
            "number",
            hint="whole",
            default=default,
            required=declared.default is None,
            minimum=low,
            maximum=high,
        )
    options = tuple(
        option
        for option in range(low, min(high, low + _MOST_OPTIONS) + 1)
        if option not in declared.refused
    )
    few = high - low < _MOST_OPTIONS
    return Field(
        name,
        label,
        "options" if few else "number",
        hint=f"{low} to {high}",
        default=default,
        required=declared.default is None,
        minimum=low,
        maximum=high,
        options=options if few else (),
    )


def _tell_need(declared: MediaInput) -> str:
    if declared.absent_name is None:
        return ""
    when = declared.required_when
    need = f", unless {_make_label(when.input).lower()} is {when.equals}" if when else ""
    return f"; may be left out{need}"


def _make_label(name: str) -> str:
    """Give the words of a name: promptText is "Prompt text"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|_", " ", name)
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
