"""What a real server was asked and answered, and the comparison with the simulator's answers.

The recordings are not part of the project. They are found in a folder next to it; without them the
tests that need them are skipped.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

PROJECT = Path(__file__).parents[3]
RECORDINGS = PROJECT.parent / "shared" / "comfyui-captures"

needs_recordings = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="no recordings of a real server next to the project"
)

# Differ from run to run.
TIME_KEYS = {"timestamp", "create_time", "execution_start_time", "execution_end_time"}
# Order without meaning: ComfyUI keeps these in sets.
SET_KEYS = {"current_outputs", "executed"}
# Texts for people, which the simulator does not repeat.
PROSE_KEYS = {"tooltip", "description", "search_aliases"}

# How a picture is printed in an error, by torch and by the simulator.
PRINTED_PICTURES = ("tensor(", "(<PIL.")

TEMP_PREFIX = re.compile(r"ComfyUI_temp_[a-z]{5}_")


def recording(name: str) -> Any:
    return json.loads((RECORDINGS / f"{name}.json").read_text())


def read_if_recorded(name: str) -> Any:
    """Return a recording, None where there is none of this name."""
    return recording(name) if (RECORDINGS / f"{name}.json").is_file() else None


def comparable(value: Any, renamed: dict[str, str] | None = None) -> Any:
    """Return a value without what differs from run to run; `renamed` maps ids to stable names."""
    names = renamed or {}
    if isinstance(value, dict) and ("binary_event" in value or "binary" in value):
        # Of a preview only kind and metadata were recorded.
        kind = value.get("binary_event", value.get("binary"))
        return {"binary": kind, "metadata": comparable(value["metadata"], names)}
    if isinstance(value, dict):
        return {
            str(names.get(key, key)): comparable_member(key, item, names)
            for key, item in value.items()
            if key not in PROSE_KEYS
        }
    if isinstance(value, list):
        return [comparable(item, names) for item in value]
    if isinstance(value, str) and value.startswith(PRINTED_PICTURES):
        return "a printed picture"
    if isinstance(value, str):
        return names.get(value, TEMP_PREFIX.sub("ComfyUI_temp_", value))
    return value


def comparable_member(key: str, item: Any, names: dict[str, str]) -> Any:
    if key in TIME_KEYS:
        return 0
    if key == "traceback":
        return []
    if key in SET_KEYS and isinstance(item, list):
        return sorted(item)
    return comparable(item, names)


def comparable_history(entry: dict[str, Any], renamed: dict[str, str]) -> Any:
    """As comparable, without the counter, and with the outputs to run in one order."""
    entry = copy.deepcopy(entry)
    entry["prompt"][0] = 0
    entry["prompt"][4].sort()
    return comparable(entry, renamed)


def assert_same_answer(answer: requests.Response, recorded: dict[str, Any]) -> None:
    assert answer.status_code == recorded["status"]
    content_type = recorded["headers"].get("Content-Type")
    if content_type is not None:
        assert answer.headers["Content-Type"] == content_type
    if isinstance(recorded["body"], str):
        assert answer.text == recorded["body"]
    else:
        renamed: dict[str, str] = {}
        body = answer.json()
        if "prompt_id" in recorded["body"]:
            renamed = {recorded["body"]["prompt_id"]: "id", body["prompt_id"]: "id"}
            # The recorded server had answered others before.
            assert type(body["number"]) is type(recorded["body"]["number"])
            body["number"] = recorded["body"]["number"]
        assert comparable(body, renamed) == comparable(recorded["body"], renamed)
