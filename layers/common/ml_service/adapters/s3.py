"""Inputs and results in S3."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, cast

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from ml_service.domain.errors import (
    HandOffFailedError,
    InputForbiddenError,
    InputNotFoundError,
    OutputMissingError,
    OutputTooLargeError,
    OutputUploadError,
)
from ml_service.domain.inputs import MediaSource
from ml_service.ports import MediaStream

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

MAX_OUTPUT_BYTES = 2 * 1024 * 1024 * 1024
_PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes
_TRANSFER = TransferConfig(
    multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=2
)
_ABSENT = frozenset({"NoSuchBucket", "NoSuchKey"})
# Rights, an archived object, or a key of KMS that is off or gone; S3 calls a lack of rights on the
# key AccessDenied too. KMS.ThrottlingException is not among them: that passes.
_FORBIDDEN = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidObjectState",
        "KMS.DisabledException",
        "KMS.KMSInvalidStateException",
        "KMS.NotFoundException",
    }
)
# Ten parts of a stream would wait in memory; two let a file of 2 GiB pass through 32 MiB.
_TRANSFER.max_in_memory_upload_chunks = 2


class S3MediaStore:
    """Reads inputs from their buckets and writes results into one."""

    def __init__(self, client: "S3Client", *, result_bucket: str = "") -> None:
        self._client = client
        self._result_bucket = result_bucket

    @contextmanager
    def open_input(self, source: MediaSource) -> Iterator[MediaStream]:
        """Stream an input object; its size is known before its first byte is read.

        Errors name the input and not its key: Lambda logs them.
        """
        try:
            answer = self._client.get_object(Bucket=source.bucket, Key=source.key)
        except ClientError as error:
            # Without s3:ListBucket an absent object would be forbidden, too; it is granted.
            code = error.response["Error"]["Code"]
            if code in _ABSENT:
                raise InputNotFoundError(f"The input {source.input} does not exist.") from None
            if code in _FORBIDDEN:
                raise InputForbiddenError(f"The input {source.input} may not be read.") from None
            raise
        with closing(answer["Body"]) as body:
            yield MediaStream(cast(BinaryIO, body), answer["ContentLength"])

    def put_result(self, key: str, content: BinaryIO, *, content_type: str) -> None:
        """Store a result of up to 2 GiB, in parts if it is large; nothing is left of a failure.

        Errors name no key here, either.
        """
        try:
            self._client.upload_fileobj(
                cast(BinaryIO, _Limited(content)),
                self._result_bucket,
                key,
                ExtraArgs={"ContentType": content_type, "ACL": "bucket-owner-full-control"},
                Config=_TRANSFER,
            )
        except (ClientError, BotoCoreError) as error:
            raise OutputUploadError("An output could not be stored.") from error

    def copy_result(self, key: str, *, to_bucket: str, to_key: str) -> None:
        """Copy a result within S3; one call does, since S3 takes up to 5 GB for it."""
        try:
            self._client.copy_object(
                Bucket=to_bucket,
                Key=to_key,
                CopySource={"Bucket": self._result_bucket, "Key": key},
                ACL="bucket-owner-full-control",
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _ABSENT | _FORBIDDEN:
                raise HandOffFailedError(f"The copy of a result met {code}.") from None
            raise


class S3ResultStore:
    """Hands results out of their bucket."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def sign(self, key: str, *, lifetime: timedelta) -> str:
        """A presigned URL; it ends with the function's own credentials if these end earlier."""
        return self._client.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": key},
            ExpiresIn=int(lifetime.total_seconds()),
        )

    @contextmanager
    def open_result(self, key: str) -> Iterator[MediaStream]:
        """Stream a result; raises OutputMissingError."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                raise OutputMissingError("A result is not in its bucket any more.") from None
            raise
        with closing(answer["Body"]) as body:
            yield MediaStream(cast(BinaryIO, body), answer["ContentLength"])

    def list_keys(self, prefix: str) -> Sequence[str]:
        """List page after page: S3 itself sorts by key only."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        found = [entry for page in pages for entry in page.get("Contents", [])]
        found.sort(key=lambda entry: entry["LastModified"], reverse=True)
        return [entry["Key"] for entry in found]


class _Limited:
    """A stream that refuses to be longer than a result may be."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._left = MAX_OUTPUT_BYTES

    def read(self, size: int = -1) -> bytes:
        """Read on; raises OutputTooLargeError past the limit."""
        data = self._content.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise OutputTooLargeError(f"An output is larger than {MAX_OUTPUT_BYTES} bytes.")
        return data
