"""Inputs as they are given on the command line."""

from pathlib import Path

import pytest

from local.job_messages import UnknownInputError
from local.submit_job import InputValueError, LocalFile, parse_inputs
from ml_service.domain.manifests import Workflow

WORKFLOW = Workflow.model_validate(
    {
        "workflow": "a-workflow",
        "fleet": "pulid",
        "subject": "ASubject",
        "inputs": {
            "photo": {"type": "image", "member": "InputS3Key"},
            "text": {"type": "text", "member": "PromptText", "default": ""},
            "seconds": {"type": "number", "member": "Seconds", "default": 0},
            "loud": {"type": "boolean", "default": False},
            "tags": {"type": "list", "of": "text", "default": []},
            "voice": {"type": "integer", "member": "Voice", "maximum": 3, "default": 1},
        },
        "bindings": {
            name: [{"node": "1", "input": name}]
            for name in ("photo", "text", "seconds", "loud", "tags", "voice", "outputPrefix")
        },
        "outputs": {"kind": "image"},
        "expected_seconds": 1,
    }
)


def test_each_value_takes_its_inputs_type():
    texts = ["photo=some/key.png", "text=a = b", "seconds=1.5", "voice=2"]
    texts += ["loud=true", 'tags=["a", "b"]']
    assert parse_inputs(WORKFLOW, texts) == {
        "loud": True,
        "tags": ["a", "b"],
        "photo": "some/key.png",
        "text": "a = b",
        "seconds": 1.5,
        "voice": 2,
    }


def test_a_file_is_read_and_keeps_its_extension(tmp_path: Path):
    photo, text = tmp_path / "me.PNG", tmp_path / "prompt.txt"
    photo.write_bytes(b"png")
    text.write_text("zwei Äpfel", encoding="utf-8")
    values = parse_inputs(WORKFLOW, [f"photo=@{photo}", f"text=@{text}"])
    assert values == {"photo": LocalFile(".png", b"png"), "text": "zwei Äpfel"}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["photo"], "is not name=value"),
        (["=x"], "is not name=value"),
        (["voice=1", "voice=2"], "given twice"),
        (["voice=1.5"], "must be a whole number"),
        (["loud=yes"], "must be true or false"),
        (["tags=a,b"], "must be a list in JSON"),
        (['tags={"a": 1}'], "must be a list in JSON"),
        (["seconds=long"], "must be a number"),
        (["photo=@no/such.png"], "No such file"),
    ],
)
def test_an_input_that_cannot_be_read_is_explained(texts: list[str], sentence: str):
    with pytest.raises(InputValueError, match=sentence):
        parse_inputs(WORKFLOW, texts)


def test_an_unknown_input_is_answered_with_those_there_are():
    with pytest.raises(UnknownInputError, match="photo, text, seconds, loud, tags, voice"):
        parse_inputs(WORKFLOW, ["foto=x"])
