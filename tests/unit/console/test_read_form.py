"""A workflow's form: what it asks for, and what becomes of what was sent."""

import io
from pathlib import Path
from typing import IO

import pytest

from local.console.read_form import FormError, UploadedFile, list_fields, read_values
from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.manifests import Workflow

CATALOG = load_catalog(Path(__file__).parents[3] / "workflows")


def read(workflow: str, **form: str | UploadedFile) -> tuple[dict[str, object], dict[str, bytes]]:
    stored: dict[str, bytes] = {}

    def put_input(key: str, content: IO[bytes]) -> None:
        stored[key] = content.read()

    values = read_values(CATALOG.workflow(workflow), form, folder="console/1", put_input=put_input)
    return values, stored


@pytest.mark.parametrize("workflow", list(CATALOG), ids=lambda workflow: workflow.workflow)
def test_every_input_has_one_field_with_a_usable_default(workflow):
    fields = list_fields(workflow)

    assert [field.name for field in fields] == list(workflow.inputs)
    for field in fields:
        if field.kind == "options":
            assert int(field.default) in field.options
        elif field.kind == "number":
            assert field.minimum <= float(field.default) <= (field.maximum or float("inf"))
        elif field.kind == "file":
            assert field.accept
        else:
            assert field.default or field.required or workflow.inputs[field.name].default == ""


def test_only_files_that_may_be_left_out_are_not_required():
    fields = {field.name: field for field in list_fields(CATALOG.workflow("video-live-portrait"))}

    assert fields["input"].required
    assert not fields["sourceVideo"].required
    assert fields["sourceVideo"].hint == "video: mp4; may be left out, unless context value is 2"
    assert fields["duration"].hint == "not negative, at most 15; 0 means 15"


def test_values_that_the_service_refuses_are_not_offered():
    fields = {field.name: field for field in list_fields(CATALOG.workflow("photo-ace-plus"))}

    assert fields["contextValue2"].options == (1,)


def test_numbers_become_numbers_and_empty_fields_are_left_out():
    values, stored = read(
        "still-image-text", promptText="  ", contextValue="7", contextValue2="", other="ignored"
    )

    assert values == {"contextValue": 7}
    assert stored == {}
    assert read("sonic-audio", startTime="1.5")[0] == {"startTime": 1.5}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("My face.PNG", "console/1/image.png"),
        ("../../etc/passwd", "console/1/image"),
        ("a.<b>", "console/1/image"),
    ],
)
def test_a_files_own_name_gives_its_key_nothing_but_the_extension(name: str, key: str):
    values, stored = read("still-image-text", image=UploadedFile(name, io.BytesIO(b"content")))

    assert values == {"image": key}
    assert stored == {key: b"content"}


def test_a_word_for_a_number_and_a_file_for_a_text_are_refused_with_the_fields_name():
    with pytest.raises(FormError, match="Context value 2 must be a number"):
        read("still-image-text", contextValue2="two")
    with pytest.raises(FormError, match="Prompt text is no file"):
        read("still-image-text", promptText=UploadedFile("a.txt", io.BytesIO()))


EVERY_KIND = Workflow.model_validate(
    {
        "workflow": "every-kind",
        "fleet": "pulid",
        "inputs": {
            "title": {"type": "text"},
            "count": {"type": "integer"},
            "many": {"type": "integer", "minimum": 1, "maximum": 10**9, "default": 1},
            "strength": {"type": "number", "minimum": 0.5, "maximum": 2},
            "fast": {"type": "boolean", "default": False},
            "style": {"type": "enum", "values": ["plain", "noir"]},
            "tags": {"type": "list", "of": "text"},
            "sizes": {"type": "list", "of": "integer", "default": [1, 2]},
        },
        "outputs": {"kind": "image"},
        "expected_seconds": 1,
    }
)


def test_every_kind_of_input_has_a_field():
    fields = {field.name: field for field in list_fields(EVERY_KIND)}
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds == {
        "title": "text",
        "count": "number",
        "many": "number",
        "strength": "number",
        "fast": "options",
        "style": "options",
        "tags": "text",
        "sizes": "text",
    }
    required = {"title", "count", "strength", "tags"}
    assert {name for name, field in fields.items() if field.required} == required
    assert fields["strength"].hint == "at least 0.5, at most 2"
    assert (fields["fast"].options, fields["fast"].default) == (("true", "false"), "false")
    assert (fields["style"].options, fields["style"].default) == (("plain", "noir"), "plain")
    assert fields["sizes"].default == "1\n2"


def test_every_kind_of_value_is_read_from_its_field():
    sent = {"title": "a", "count": "3", "strength": "1.5", "fast": "false", "style": "noir"}
    sent |= {"tags": "one\r\n\r\ntwo", "sizes": "3\n4"}
    values = read_values(EVERY_KIND, sent, folder="f", put_input=lambda *_: None)
    assert values == {
        "title": "a",
        "count": 3,
        "strength": 1.5,
        "fast": False,
        "style": "noir",
        "tags": ["one", "two"],
        "sizes": [3, 4],
    }
