"""What MediaStore and ConversionQueues promise, and the refusals of S3 and SQS by their codes."""

import io
from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from local.sample_media import make_image
from ml_service.adapters.s3 import S3MediaStore
from ml_service.adapters.sqs import SqsConversionQueues
from ml_service.domain.errors import (
    HandOffFailedError,
    InputForbiddenError,
    InputNotFoundError,
)
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


def copy(store: S3MediaStore) -> None:
    store.copy_result("comfyui-results/a.mp4", to_bucket="videos", to_key="7/video.mp4")


@pytest.fixture
def aws(credentials: None) -> Iterator[None]:
    with mock_aws():
        yield


def test_a_result_is_copied_with_its_type(aws):
    client = boto3.client("s3")
    for bucket in ("results", "videos"):
        client.create_bucket(Bucket=bucket)
    store = S3MediaStore(client, result_bucket="results")
    store.put_result("comfyui-results/a.mp4", io.BytesIO(b"video"), content_type="video/mp4")
    copy(store)
    copied = client.get_object(Bucket="videos", Key="7/video.mp4")
    assert (copied["Body"].read(), copied["ContentType"]) == (b"video", "video/mp4")


def test_a_copy_into_a_bucket_that_is_not_there_has_failed_for_good(aws):
    client = boto3.client("s3")
    client.create_bucket(Bucket="results")
    with pytest.raises(HandOffFailedError):
        copy(S3MediaStore(client, result_bucket="results"))


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [("AccessDenied", 403, HandOffFailedError), ("SlowDown", 503, ClientError)],
)
def test_a_copy_that_is_refused_fails_and_one_that_is_slowed_down_is_retried(
    credentials, code, status, error
):
    client = boto3.client("s3")
    with Stubber(client) as stubber:
        stubber.add_client_error("copy_object", code, http_status_code=status)
        with pytest.raises(error):
            copy(S3MediaStore(client, result_bucket="results"))


def test_messages_go_to_the_queue_of_the_arn(aws):
    client = boto3.client("sqs")
    queue_url = client.create_queue(QueueName="convert")["QueueUrl"]
    attributes = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    arn = attributes["Attributes"]["QueueArn"]
    SqsConversionQueues(client).send(arn, ["one", "two"])
    received = client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(message["Body"] for message in received) == ["one", "two"]


def test_a_queue_that_is_not_there_has_failed_for_good(aws):
    queues = SqsConversionQueues(boto3.client("sqs"))
    with pytest.raises(HandOffFailedError):
        queues.send("arn:aws:sqs:us-east-1:123456789012:convert", ["one"])


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, HandOffFailedError),
        ("KmsAccessDenied", 400, HandOffFailedError),
        ("RequestThrottled", 403, ClientError),
    ],
)
def test_a_queue_that_refuses_has_failed_and_one_that_throttles_is_retried(
    credentials, code, status, error
):
    client = boto3.client("sqs")
    with Stubber(client) as stubber:
        stubber.add_client_error("get_queue_url", code, http_status_code=status)
        with pytest.raises(error):
            SqsConversionQueues(client).send("arn:aws:sqs:us-east-1:123456789012:convert", ["one"])
