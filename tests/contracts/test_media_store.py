"""What MediaStore promises of inputs, on both its forms, and S3's refusals by their codes."""

from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from local.sample_media import make_image
from ml_service.adapters.s3 import S3MediaStore
from ml_service.domain.errors import InputForbiddenError, InputNotFoundError
from ml_service.domain.inputs import MediaSource
from ml_service.ports import MediaStore
from ml_service.services.check_input import check_input
from tests.fakes import InMemoryMediaStore

PICTURE = make_image(color=(10, 20, 30))


def source(key: str = "people/anna.png", bucket: str = "inputs") -> MediaSource:
    return MediaSource(input="image", bucket=bucket, key=key, upload_name="n.png")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


@pytest.fixture(params=["memory", "s3"])
def make_store(
    request: pytest.FixtureRequest, credentials: None
) -> Iterator[Callable[[dict[str, bytes]], MediaStore]]:
    def in_memory(objects: dict[str, bytes]) -> MediaStore:
        return InMemoryMediaStore({("inputs", key): content for key, content in objects.items()})

    def in_s3(objects: dict[str, bytes]) -> MediaStore:
        client = boto3.client("s3")
        client.create_bucket(Bucket="inputs")
        for key, content in objects.items():
            client.put_object(Bucket="inputs", Key=key, Body=content)
        return S3MediaStore(client)

    if request.param == "memory":
        yield in_memory
    else:
        with mock_aws():
            yield in_s3


def test_an_input_is_streamed_with_its_size_and_passes_the_guard(make_store):
    content = PICTURE + bytes(9 * 1024 * 1024)  # more than the guard's head
    with make_store({"people/anna.png": content}).open_input(source()) as stream:
        checked = check_input(source(), stream)
        assert checked.size == len(content)
        assert checked.content.read() == content


@pytest.mark.parametrize("absent", [source(key="people/anne.png"), source(bucket="elsewhere")])
def test_an_absent_object_or_bucket_is_not_found(make_store, absent: MediaSource):
    with (
        pytest.raises(InputNotFoundError, match="^The input image does not exist"),
        make_store({"people/anna.png": PICTURE}).open_input(absent),
    ):
        pass


def open_refused(code: str, status: int) -> None:
    client = boto3.client("s3")
    with Stubber(client) as stubber:
        stubber.add_client_error("get_object", code, "text of S3", http_status_code=status)
        with S3MediaStore(client).open_input(source()):
            pass


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("AccessDenied", 403),
        ("AllAccessDisabled", 403),
        ("InvalidObjectState", 403),
        ("KMS.DisabledException", 400),
        ("KMS.KMSInvalidStateException", 400),
        ("KMS.NotFoundException", 400),
    ],
)
def test_an_object_without_rights_or_without_its_key_is_forbidden(credentials, code, status):
    with pytest.raises(InputForbiddenError) as caught:
        open_refused(code, status)
    assert str(caught.value) == "The input image may not be read."


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("SlowDown", 503),
        ("InternalError", 500),
        ("KMS.ThrottlingException", 400),
        ("ExpiredToken", 400),
    ],
)
def test_what_may_pass_is_left_to_a_retry(credentials, code, status):
    with pytest.raises(ClientError):
        open_refused(code, status)
