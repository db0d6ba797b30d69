"""Whether who may use a function's URL has signed a request, as AuthType AWS_IAM asks."""

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_LIFETIME: Final = timedelta(minutes=5)
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[\w-]+)/(?P<service>\w+)"
    r"/aws4_request, ?SignedHeaders=(?P<headers>[\w;-]+), ?Signature=(?P<signature>\w+)"
)


def refuse_signature(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    callers: Mapping[str, str],
    now: datetime,
) -> str | None:
    """Say why Lambda would refuse a request, None if it is well signed.

    ``headers`` are found in any case. ``callers`` are the access keys that may use the URL, with
    their secrets.
    """
    match = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
    if match is None:
        return "Missing Authentication Token"
    secret = callers.get(match["key"])
    if secret is None or match["service"] != "lambda":
        return "Forbidden"
    date = headers.get("X-Amz-Date", "")
    try:
        signed_at = datetime.strptime(date, SIGV4_TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return "Date must be in ISO-8601 'basic format'."
    if abs(now - signed_at) > _LIFETIME:
        return f"Signature expired: {date} is no longer valid."
    signed = {name: headers.get(name, "") for name in match["headers"].split(";")}
    request = AWSRequest(method, url, headers=signed, data=body)
    request.context["timestamp"] = date
    auth = SigV4Auth(Credentials(match["key"], secret), match["service"], match["region"])
    text = auth.string_to_sign(request, auth.canonical_request(request))
    if not hmac.compare_digest(auth.signature(text, request), match["signature"]):
        return "The request signature we calculated does not match the signature you provided."
    return None
