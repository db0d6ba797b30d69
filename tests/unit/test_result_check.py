"""What a sample job's result is held to, by the graph that made it."""

import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local import sample_jobs
from local.backend import Reply
from local.media_check import MediaCheckError
from local.result_check import check_result
from local.sample_jobs import SampleJob, make_sample_job
from local.sample_media import make_image
from tests.makers import BUCKET, CATALOG, PROJECT

RED, BLUE = (200, 40, 40), (40, 40, 200)


def make_job(name: str) -> SampleJob:
    return make_sample_job(
        CATALOG.workflow(name),
        job_id="job",
        partial_name=str(uuid.uuid4()),
        bucket=BUCKET,
        stage="dev",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        color=RED,
        put_input=lambda key, content: None,
    )


def check(job: SampleJob, *, color: tuple[int, int, int] = RED, **roles: str) -> list[str]:
    """Check a result whose files have one colour and hold the prompt's text, if it is asked for."""
    data = {
        role: f"comfyui-results/{job.partial_name}{end}.png" if end else ""
        for role, end in {"MainKey": "_608x1080", **roles}.items()
    }
    content = make_image(color=color) + (job.text or "").replace('"', '\\"').encode()
    return list(check_result(job, Reply(True, data), lambda key: content))


@pytest.fixture
def own_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's workflows, in a folder of one's own."""
    folder = tmp_path / "workflows"
    shutil.copytree(PROJECT / "workflows", folder)
    monkeypatch.setattr(sample_jobs, "WORKFLOWS", folder)
    return folder


@pytest.mark.reference_graphs
def test_the_result_of_a_reference_graph_shows_what_went_in():
    job = make_job("flux-photo-prompt")
    assert len(check(job)) == 1
    with pytest.raises(MediaCheckError, match="expected the colour"):
        check(job, color=BLUE)
    with pytest.raises(MediaCheckError, match="prompt text"):
        check_result(
            job,
            Reply(True, {"MainKey": f"comfyui-results/{job.partial_name}.png"}),
            lambda key: make_image(color=RED),
        )


def test_a_graph_with_nodes_of_its_own_may_paint_what_it_likes(own_graphs: Path):
    path = own_graphs / "pulid" / "flux-photo-prompt.json"
    path.write_text(path.read_text().replace('"SaveImage"', '"Image Saver"'))
    job = make_job("flux-photo-prompt")
    assert (job.color, job.text) == (None, None)
    assert len(check(job, color=BLUE)) == 1


def test_a_graph_may_give_more_files_than_its_workflow_asks_for():
    job = make_job("flux-photo-prompt")
    assert len(check(job, CoverKey="_608x418", ThumbnailKey="_128x128")) == 3


def test_a_file_that_is_missing_is_told():
    with pytest.raises(MediaCheckError, match="expected 3 files, found 2"):
        check(make_job("photo-make-up-thumbnails"), CoverKey="_608x418")


def test_a_result_without_a_main_file_is_told():
    with pytest.raises(MediaCheckError, match="no file is the main one"):
        check(make_job("flux-photo-prompt"), MainKey="", CoverKey="_608x418")
