"""The console on a running local mode: without a browser, and with one where there is one."""

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from local.backend import Backend
from local.find_backend import Target
from local.list_alarms import run_alarms
from local.sample_media import make_image, make_video
from local.start_local_mode import running_local_mode
from ml_service.domain.fleets import GroupMember
from tests.integration.console.browser import IS_INSTALLED, running_browser

FLEETS = ("lip-sync", "pulid", "makeup")
HOSTILE = """<script>document.title='taken'</script><img src=x onerror=alert(1)>"&'"""
FINAL_SECONDS = 60


class Site:
    """The console as a client without scripts sees it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.root = backend.ready["endpoint"]

    def get(self, path: str, status: int = 200, **headers: str) -> requests.Response:
        answer = requests.get(f"{self.root}/_console{path}", headers=headers, timeout=10)
        assert answer.status_code == status, answer.text
        return answer

    def submit(self, workflow: str, *, files: dict[str, tuple[str, bytes]], **texts: str) -> str:
        """Send a workflow's form; gives the path of the job's page."""
        parts = {**files, **{name: (None, text) for name, text in texts.items()}}
        answer = requests.post(
            f"{self.root}/_console/submit/{workflow}",
            files=parts,
            allow_redirects=False,
            timeout=10,
        )
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"].removeprefix("/_console")

    def await_final(self, job: str) -> str:
        """The part of a job's page that is refreshed, once it says that it is the last."""
        end = time.monotonic() + FINAL_SECONDS
        while "data-final" not in (html := self.get(f"{job}/state").text):
            assert time.monotonic() < end, html
            time.sleep(0.1)
        return html


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("local-mode")
    with running_local_mode(folder, "--prompt-seconds", "0") as backend:
        yield Site(backend)


def read_pixel(picture: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(picture)) as image:
        pixel = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


def test_every_page_and_every_form_opens(site: Site) -> None:
    pages = ["/", "/fleets", "/jobs", "/jobs/list", "/submit"]
    forms = re.findall(r'href="/_console(/submit/[^"]+)"', site.get("/submit").text)

    assert len(forms) == 23
    for path in pages + forms:
        assert site.get(path).headers["Content-Type"].startswith("text/html")


def test_pages_load_nothing_from_elsewhere_and_run_only_their_own_script(site: Site) -> None:
    page = site.get("/")

    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert re.findall(r'(?:src|href)="(?!/_console|data:,)[^"]*"', page.text) == []
    for path in re.findall(r'"/_console(/static/[^"]+)"', page.text):
        assert site.get(path).content


def test_fleets_show_queue_instances_and_streaks(site: Site) -> None:
    job = site.submit("flux-prompt", files={}, promptText="so that the instances are known")
    site.await_final(job)
    html = site.get("/fleets").text

    for fleet in FLEETS:
        assert f'id="fleet-{fleet}"' in html
    for words in ("Waiting in queue", "Busy checks", "Idle checks", "0 of 14"):
        assert words in html
    instances = site.backend.fleets.list_instances("pulid")
    assert instances
    for instance in instances:
        assert f"<code>{instance.instance_id}</code>" in html
        assert f"<code>{instance.address}</code>" in html


def test_alarms_show_their_state_as_the_command_does(site: Site, capsys) -> None:
    """On a page of their own, and in the terminal, which tells by its status if one rings."""
    told = None
    for _ in range(5):  # an alarm may begin to ring, or end, between page and command
        page = site.get("/alarms/list").text
        told = (run_alarms(Target(endpoint=site.root)), "rings" in page)
        if told in {(0, False), (1, True)}:
            break
    assert told in {(0, False), (1, True)}
    assert page.count("<code>prod-ml-service-") == 30
    assert "prod-ml-service-pulid-no-capacity" in capsys.readouterr().out


def test_fleets_say_why_an_instance_takes_no_jobs(site: Site) -> None:
    store, clock = site.backend.fleets, site.backend.make_clock()
    members = [
        GroupMember(f"i-{name}", clock.now(), "10.9.9.9", in_service=True)
        for name in ("cold", "warming", "unfit", "slow")
    ]
    for member in members:
        store.put_instance("lip-sync", member, reading=0, at=clock.now())
    _, warming, unfit, slow = [member.key for member in members]
    store.begin_warm_up("lip-sync", warming, at=clock.now())
    store.abandon_warm_up("lip-sync", unfit, fault="No GPU.")
    store.end_warm_up("lip-sync", slow, at=clock.now(), fault="Too slow.")
    html = site.get("/fleets").text
    for member in members:
        store.remove_instance("lip-sync", member.key)

    for words in (
        "its warm-up has not begun",
        "it takes jobs once its warm-up is over",
        "No GPU.",
        "not warmed up: Too slow.",
    ):
        assert words in html


def test_pictures_sent_by_the_form_come_back_as_results(site: Site) -> None:
    job = site.submit(
        "photo-make-up-lips-thumbnails",
        files={
            "image": ("face.PNG", make_image(color=(200, 120, 90))),
            "makeup": ("../lips.png", make_image(color=(190, 20, 60))),
        },
    )
    html = site.await_final(job)

    results = re.findall(r'<img src="/_console([^"]+/results/\d+)"', html)
    assert len(results) == 4
    answers = [site.get(path) for path in results]
    assert {answer.headers["Content-Type"] for answer in answers} == {"image/png"}
    red, green, blue = read_pixel(answers[0].content)
    assert red > 2 * green, "the lips' colour lies over the face's"
    assert red > 2 * blue
    sent = re.findall(r'<img src="/_console([^"]+/inputs/\d+)"', html)
    assert [read_pixel(site.get(path).content) for path in sent] == [(200, 120, 90), (190, 20, 60)]
    assert job.removeprefix("/jobs/")[:10] in site.get("/jobs/list").text


def test_a_file_may_be_larger_than_what_lambda_takes(site: Site) -> None:
    """The port's limit for invocations, 6 MB, is not one for uploads."""
    padding = bytes(20 * 1024 * 1024)
    picture = make_image(color=(10, 200, 30)) + padding
    job = site.submit(
        "photo-make-up-lips-thumbnails",
        files={"image": ("a.png", picture), "makeup": ("b.png", make_image(color=(1, 2, 3)))},
    )

    assert ">succeeded<" in site.await_final(job)
    assert site.get(f"{job}/inputs/0").content == picture


def test_a_part_of_a_video_can_be_asked_for(site: Site) -> None:
    """A browser does so when a person winds it."""
    job = site.submit("music-gen", files={"input": ("a.mp4", make_video(color=(20, 90, 160)))})
    found = re.search(r'<video src="/_console([^"]+/results/0)"', site.await_final(job))
    assert found is not None
    whole = site.get(found[1])
    part = site.get(found[1], 206, Range="bytes=10-19")

    assert whole.headers["Content-Type"] == "video/mp4"
    assert part.content == whole.content[10:20]
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole.content)}"
    site.get(found[1], 416, Range=f"bytes={len(whole.content)}-")


def test_hostile_texts_are_shown_as_texts(site: Site) -> None:
    job = site.submit("flux-prompt", files={}, promptText=HOSTILE)
    html = site.await_final(job)

    assert HOSTILE not in html
    assert "<script" not in html
    assert "&lt;script&gt;document.title=&#39;taken&#39;&lt;/script&gt;" in html
    assert "<script>al" not in site.get("/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E").text


def test_a_failed_job_shows_its_sentence(site: Site) -> None:
    job = site.submit(
        "photo-make-up-lips-thumbnails",
        files={"image": ("a.png", b"no picture"), "makeup": ("b.png", b"none either")},
    )
    html = site.await_final(job)
    failure = site.backend.jobs.get(job.removeprefix("/jobs/")).failure

    assert failure is not None
    assert f"<strong>{failure.code}</strong>" in html
    assert 'class="error"' in html


def test_a_refused_message_shows_its_sentence(site: Site) -> None:
    job = site.submit("flux-prompt", files={}, promptText="x" * 10_001)
    html = site.await_final(job)

    assert "<strong>INVALID_MESSAGE</strong>" in html
    assert "PromptText must have at most 10000 characters." in html


def test_a_form_that_cannot_be_sent_keeps_what_was_typed(site: Site) -> None:
    answer = requests.post(
        f"{site.root}/_console/submit/still-image-text",
        files={"promptText": (None, "kept <b>"), "contextValue": (None, "many")},
        timeout=10,
    )

    assert answer.status_code == 400
    assert "Context value must be a number." in answer.text
    assert "kept &lt;b&gt;</textarea>" in answer.text


def test_pages_of_other_sites_cannot_send_jobs(site: Site) -> None:
    answer = requests.post(
        f"{site.root}/_console/submit/flux-prompt",
        files={"promptText": (None, "not mine")},
        headers={"Sec-Fetch-Site": "cross-site"},
        timeout=10,
    )

    assert answer.status_code == 403


def test_what_is_not_there_is_not_found(site: Site) -> None:
    for path in ("/submit/no-workflow", "/jobs/none/results/0", "/static/../pages.py", "/none"):
        site.get(path, 404)
    assert "no record of this job" in site.get("/jobs/none").text


def test_the_root_leads_browsers_to_the_console_and_lists_buckets_to_sdks(site: Site) -> None:
    accept = {"Accept": "text/html,application/xhtml+xml"}
    browser = requests.get(f"{site.root}/", headers=accept, allow_redirects=False, timeout=10)
    names = [bucket["Name"] for bucket in site.backend.s3.list_buckets()["Buckets"]]

    assert browser.status_code == 302
    assert browser.headers["Location"] == "/_console/"
    assert site.backend.ready["result_bucket"] in names
    signed = {**accept, "Authorization": "AWS4-HMAC-SHA256 Credential=local/20261121/x/s3/a"}
    assert b"ListAllMyBuckets" in requests.get(f"{site.root}/", headers=signed, timeout=10).content


@pytest.mark.skipif(not IS_INSTALLED, reason="chromium or chromedriver is not installed")
def test_a_person_submits_by_the_form_and_sees_the_picture(site: Site, tmp_path: Path) -> None:
    face, lips = tmp_path / "face.png", tmp_path / "lips.png"
    face.write_bytes(make_image(color=(200, 120, 90)))
    lips.write_bytes(make_image(color=(190, 20, 60)))
    with running_browser(tmp_path / "profile") as browser:
        browser.open(f"{site.root}/")
        assert browser.read("h1") == "Fleets"
        browser.click('a[href$="/submit"]')
        browser.click('a[href$="/submit/photo-make-up-lips-thumbnails"]')
        browser.fill("#image", str(face))
        browser.fill("#makeup", str(lips))
        browser.click("form button")
        browser.await_true("document.querySelector('[data-final]') !== null")
        browser.await_true("[...document.images].every(image => image.naturalWidth > 0)")

        assert browser.read(".state") == "succeeded"
        widths = browser.run(
            "return [...document.querySelectorAll('img[src*=results]')].map(i => i.naturalWidth)"
        )
        assert sorted(widths) == [128, 608, 608, 608]

        browser.open(f"{site.root}/_console/submit/flux-prompt")
        browser.fill("textarea", HOSTILE)
        browser.click("form button")
        browser.await_true("document.querySelector('[data-final]') !== null")
        assert HOSTILE in browser.read(".inputs")
        assert browser.run("return document.title").startswith("Job ")


@pytest.mark.skipif(not IS_INSTALLED, reason="chromium or chromedriver is not installed")
def test_a_person_plays_the_video(site: Site, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(make_image(color=(10, 90, 200)))
    with running_browser(tmp_path / "profile") as browser:
        browser.open(f"{site.root}/_console/submit/still-image-text")
        browser.fill("input[type=file]", str(image))
        browser.fill("textarea", "a quiet sea")
        browser.click("form button")
        browser.await_true("document.querySelector('[data-final]') !== null")
        assert browser.read(".state") == "succeeded"
        browser.await_true("document.querySelector('video').duration > 0.5")
