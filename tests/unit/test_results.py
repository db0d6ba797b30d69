import json
from datetime import timedelta

import pytest

from ml_service.domain.errors import OutputInvalidError, OutputMissingError
from ml_service.domain.manifests import OutputRole
from ml_service.domain.replies import make_error_reply, make_success_reply
from ml_service.domain.results import OutputFile, assign_roles, list_output_files
from tests.fakes import NOON
from tests.makers import CATALOG

ROLES = CATALOG.workflow("photo-make-up-lips-thumbnails").outputs.roles


def entry(filename: object, **changes: object) -> dict[str, object]:
    return {"filename": filename, "subfolder": "", "type": "output", **changes}


def test_files_are_found_under_any_kind():
    outputs = {
        "1": {"images": [entry("a.png")], "animated": [True]},
        "2": {"gifs": [entry("b.mp4")], "text": ["words"]},
    }
    assert list_output_files(outputs) == (
        OutputFile(filename="a.png"),
        OutputFile(filename="b.mp4"),
    )


def test_previews_and_inputs_are_no_results():
    outputs = {"1": {"images": [entry("t.png", type="temp"), entry("i.png", type="input")]}}
    with pytest.raises(OutputMissingError):
        list_output_files(outputs)


@pytest.mark.parametrize(
    "bad",
    [
        entry("../../x"),
        entry("a/b.png"),
        entry("a\\b.png"),
        entry(".."),
        entry(""),
        entry(None),
        entry("a\n.png"),
        entry("x" * 256),
        entry("a.png", subfolder="/etc"),
        entry("a.png", subfolder="a/../.."),
        entry("a.png", subfolder=3),
        entry("a.png", type="elsewhere"),
    ],
)
def test_a_name_that_could_leave_its_folder_is_refused(bad: dict[str, object]):
    with pytest.raises(OutputInvalidError):
        list_output_files({"1": {"images": [bad]}})


def test_two_files_that_would_share_a_key_are_refused():
    with pytest.raises(OutputInvalidError):
        list_output_files({"1": {"images": [entry("a.png"), entry("a.png", subfolder="s")]}})


def test_key_and_content_type_come_from_the_file_name():
    file = OutputFile(filename="42-x_00001_.MP4", subfolder="video")
    assert file.key == "comfyui-results/42-x_00001_.MP4"
    assert file.content_type == "video/mp4"
    assert OutputFile(filename="x.bin").content_type == "application/octet-stream"


def test_a_single_file_is_the_main_one():
    assert assign_roles(["k_mask.png"], ROLES, output_prefix="p") == {OutputRole.MAIN: "k_mask.png"}


def test_several_files_go_by_what_stands_behind_the_prefix():
    prefix = "42-x-photo_608x1080_00001_"
    keys = [
        f"comfyui-results/{prefix}{role}_00001_.png" for role in ("_mask", "_608x418", "_608x1080")
    ]
    assert assign_roles(keys, ROLES, output_prefix=prefix) == {
        OutputRole.MASK: keys[0],
        OutputRole.COVER: keys[1],
        OutputRole.MAIN: keys[2],
    }


def test_the_success_reply_is_the_contracts():
    reply = json.loads(
        make_success_reply(
            job_id="j", run=1, partial_name="p", bucket="b", roles={OutputRole.MAIN: "k"}, at=NOON
        )
    )
    data = json.loads(reply.pop("data"))
    assert data == {
        "Bucket": "b",
        "PartialName": "p",
        "MainKey": "k",
        "CoverKey": "",
        "ThumbnailKey": "",
        "MaskKey": "",
    }
    reply.pop("id")
    assert reply == {
        "source": "ComfyUiResult",
        "specversion": "1.0",
        "type": "Frever.Client.Shared.AI.ComfyUi.Contract.ComfyUiResult",
        "time": "2026-11-21T12:00:00Z",
    }


def test_the_error_reply_is_the_contracts_and_its_id_is_stable():
    first, second = (
        json.loads(make_error_reply(job_id="j", partial_name="p", sentence="No.", at=at))
        for at in (NOON, NOON + timedelta(days=1))
    )
    assert json.loads(first["data"]) == {"PartialName": "p", "Error": "No."}
    assert (first["source"], first["type"].rsplit(".", 1)[1]) == ("ComfyUiError", "ComfyUiError")
    assert first["id"] == second["id"]


def test_the_answers_of_two_runs_have_different_ids():
    success = make_success_reply(job_id="j", run=2, partial_name="p", bucket="b", roles={}, at=NOON)
    errors = [
        make_error_reply(job_id="j", run=run, partial_name="p", sentence="No.", at=NOON)
        for run in (1, 2, 3)
    ]
    ids = [json.loads(reply)["id"] for reply in (*errors, success)]
    assert len(set(ids)) == 3
    assert ids[3] == ids[1]
