import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ml_service.domain.manifests import Workflow, make_schema
from tests.makers import PROJECT

FOLDER = PROJECT / "workflows"
MANIFESTS = sorted(FOLDER.glob("*/*.yaml"))
WHOLE = {
    "workflow": "a-workflow",
    "fleet": "pulid",
    "subject": ["OneMessage", "AnotherMessage"],
    "selection": {"member": "Keys", "count": 2},
    "prompt_files": ["a_workflow.json"],
    "inputs": {
        "photo": {"type": "image", "extensions": ["png"], "max_bytes": 1000},
        "voice": {"type": "audio", "upload_name": "{prefix}-a.{extension}", "absent_name": "none"},
        "clip": {
            "type": "video",
            "member": "Keys",
            "index": 1,
            "upload_name": "{prefix}-v.{extension}",
            "default_file": "raw.mp4",
            "absent_name": "none",
            "required_when": {"input": "mode", "equals": 2},
        },
        "prompt": {"type": "text", "default": "x", "max_length": 10, "join_lines": True},
        "mode": {"type": "integer", "minimum": 1, "maximum": 3, "default": 1, "below": "default"},
        "strength": {"type": "number", "minimum": 0, "maximum": 1, "above": "clamp"},
        "fast": {"type": "boolean", "default": False},
        "style": {"type": "enum", "values": ["a", "b"], "default": "a", "unknown": "default"},
        "tags": {"type": "list", "of": "text", "max_items": 3, "separator": ", "},
    },
    "tokens": {"POSITIVE_PROMPT_PLACEHOLDER": "prompt"},
    "bindings": {
        "photo": [{"title": "Load Image", "input": "image"}],
        "seed": [{"class_type": "KSampler", "input": "seed"}],
        "outputPrefix": [{"node": "9", "input": "filename_prefix", "suffix": "_mask"}],
    },
    "seed": {"fixed": 3},
    "outputs": {
        "kind": "image",
        "roles": {"mask": "_mask"},
        "convert": {"format": "webp", "quality": 80},
    },
    "expected_seconds": 2.5,
    "run_seconds": 60,
    "attempt_seconds": 40,
    "deadline_seconds": 120,
    "models": [{"folder": "checkpoints", "file": "flux\\a.safetensors"}],
    "custom_nodes": ["ComfyUI-VideoHelperSuite"],
}


def change(**changes: Any) -> dict[str, Any]:
    return {**WHOLE, **changes}


def change_input(name: str, **changes: Any) -> dict[str, Any]:
    return change(inputs={**WHOLE["inputs"], name: {**WHOLE["inputs"][name], **changes}})


def test_a_manifest_can_say_all_of_it():
    workflow = Workflow.model_validate(WHOLE)
    assert workflow.subjects == ("OneMessage", "AnotherMessage")
    assert workflow.main_input == "photo"
    assert Workflow.model_validate(change(subject="One")).subjects == ("One",)


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (change(inputs={}), "undeclared inputs are bound: photo, prompt"),
        (change(inputs={**WHOLE["inputs"], "seed": {"type": "integer"}}), "seed need not"),
        (change(inputs={**WHOLE["inputs"], "a__b": {"type": "integer"}}), "pattern"),
        (change(unknown=1), "Extra inputs are not permitted"),
        (change_input("voice", upload_name="{prefix}.{extension}"), "more than one media input"),
        (change_input("clip", required_when={"input": "prompt", "equals": 1}), "is no integer"),
        (change_input("mode", default=None), "no default to take"),
        (change_input("mode", default=4), "default is out of range"),
        (change_input("strength", minimum=2), "minimum is above maximum"),
        (change_input("style", default="c"), "default is none of the values"),
        (change(bindings={"seed": [{"input": "seed"}]}), "needs node, title or class_type"),
        (change(outputs={**WHOLE["outputs"], "kind": "video"}), "only pictures"),
        (change(expected_seconds=0), "greater than 0"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(manifest: dict[str, Any], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Workflow.model_validate(manifest)


def test_the_schema_is_the_models():
    """Write it anew with: ml-service workflows schema > workflows/schema/manifest.json."""
    assert json.loads((FOLDER / "schema" / "manifest.json").read_text()) == make_schema()


def test_the_schema_takes_what_the_model_takes_and_explains_it():
    schema = make_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors(WHOLE)) == []
    assert list(validator.iter_errors(change(unknown=1)))
    assert all(
        "description" in member or "$ref" in member for member in schema["properties"].values()
    )


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_editors_complete_every_shipped_manifest(path):
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../schema/manifest.json\n")
    assert list(Draft202012Validator(make_schema()).iter_errors(yaml.safe_load(text))) == []
