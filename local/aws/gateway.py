"""The one port of the embedded AWS: answers what moto cannot, passes all the rest on to it."""

import asyncio
import errno
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from local.aws import http_events
from local.aws.errors import PortInUseError
from local.aws.lambda_runtime import FunctionNotFoundError, LambdaRuntime, TooManyRequestsError
from local.aws.signatures import refuse_signature

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient

HOST: Final = "127.0.0.1"
# No bucket can be named so: the path collides with nothing of S3's.
EXECUTION_REPORTS_PATH: Final = "/_local/executions"
# For who wants to see what becomes of a call whose process dies.
WORKER_KILLS_PATH: Final = "/_local/workers/kill"
# What the functions have used so far, for who works out what they would cost.
USAGE_PATH: Final = "/_local/usage"
# For browsers; neither can this be a bucket's.
PAGES_PATH: Final = "/_console/"
# Where a function URL is, which AWS gives a host of its own, and a load balancer with this target.
FUNCTION_URLS_PATH: Final = "/_url/"
BALANCERS_PATH: Final = "/_balancer/"
_INVOCATIONS_PATH: Final = "/2015-03-31/functions/{name}/invocations"
_PAYLOAD_LIMIT: Final = 6 * 1024 * 1024
_BODY_LIMIT: Final = _PAYLOAD_LIMIT + 1024 * 1024
_HEADER_LIMIT: Final = 64 * 1024
# moto's own connections to the gateway lie idle while a state machine waits.
_KEEP_ALIVE_SECONDS: Final = 7 * 24 * 3600.0
# aiohttp takes 0 for "without end".
_SHUTDOWN_SECONDS: Final = 0.1
_CHUNK_BYTES: Final = 256 * 1024
# Name, name:qualifier, account:function:name, or a whole ARN.
_FUNCTION_NAME: Final = re.compile(r"(?:.*:function:)?(?P<name>[\w-]+)(?::[\w$-]+)?")
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

ReportHandler = Callable[[dict[str, Any]], Awaitable[None]]
UrlAnswerHandler = Callable[[str, int], None]


class _LambdaError(Exception):
    """When Lambda's API answers with an error of its own; the status is HTTP's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class _Backends:
    moto: str
    runtime: LambdaRuntime
    autoscaling: "AutoScalingClient"
    report: ReportHandler
    take_url_answer: UrlAnswerHandler


class Gateway:
    """The HTTP server that any SDK is pointed to."""

    def __init__(
        self,
        pages: web.Application | None = None,
        routes: Sequence[web.RouteDef] = (),
        url_callers: Mapping[str, str] | None = None,
    ) -> None:
        """Make a gateway that answers "not ready" until it is connected.

        ``pages`` is served below PAGES_PATH, ``routes`` as they are. ``url_callers`` are the access
        keys that may use functions' URLs of AuthType AWS_IAM, with their secrets; None: anybody.
        """
        self._url_callers = url_callers
        self.endpoint = ""
        self._backends: _Backends | None = None
        self._capacity_lock = asyncio.Lock()
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_routes(routes)
        application.router.add_post(_INVOCATIONS_PATH, self._invoke)
        application.router.add_post(EXECUTION_REPORTS_PATH, self._take_report)
        application.router.add_post(WORKER_KILLS_PATH, self._kill_worker)
        application.router.add_get(USAGE_PATH, self._tell_usage)
        for prefix in (FUNCTION_URLS_PATH, BALANCERS_PATH):
            application.router.add_route("*", prefix + "{name}{path:/.*}", self._serve_function)
        if pages is not None:
            application.router.add_get("/", self._greet, allow_head=False)
            application.router.add_get(PAGES_PATH.rstrip("/"), _redirect_to_pages)
            application.add_subapp(PAGES_PATH, pages)
        application.router.add_route("*", "/{tail:.*}", self._pass_on)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        # moto closes every connection itself, and long polls hold many of them.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    @classmethod
    async def start(
        cls,
        port: int,
        pages: web.Application | None = None,
        routes: Sequence[web.RouteDef] = (),
        url_callers: Mapping[str, str] | None = None,
    ) -> "Gateway":
        """Listen on a port, 0 for a free one; raises PortInUseError."""
        gateway = cls(pages, routes, url_callers)
        await gateway._runner.setup()
        try:
            await web.TCPSite(gateway._runner, HOST, port).start()
        except OSError as error:
            await gateway.stop()
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUseError(
                f"port {port} is in use: stop what listens there, or choose another --port"
            ) from None
        gateway.endpoint = f"http://{HOST}:{gateway._runner.addresses[0][1]}"
        return gateway

    def connect(
        self,
        *,
        moto: str,
        runtime: LambdaRuntime,
        autoscaling: "AutoScalingClient",
        report: ReportHandler,
        take_url_answer: UrlAnswerHandler,
    ) -> None:
        """Begin to answer: from ``runtime``, and from ``moto`` (its URL) for all the rest.

        ``take_url_answer`` is told of each answer of a function's URL: whose, and its status.
        """
        self._backends = _Backends(moto.rstrip("/"), runtime, autoscaling, report, take_url_answer)

    async def stop(self) -> None:
        """Stop listening and drop what is under way."""
        await self._runner.cleanup()
        await self._session.close()

    def _connected(self) -> "_Backends":
        if self._backends is None:
            raise web.HTTPServiceUnavailable(text="the embedded AWS is starting")
        return self._backends

    async def _take_report(self, request: web.Request) -> web.Response:
        await self._connected().report(await request.json())
        return web.Response(status=204)

    async def _tell_usage(self, _: web.Request) -> web.Response:
        return web.json_response(self._connected().runtime.read_usage())

    async def _kill_worker(self, request: web.Request) -> web.Response:
        """Kill a process in a call of the first function in ``{"functions": [...]}`` that has one.

        Answers ``{"killed": name}``, null if none of them has a call under way.
        """
        names = (await request.json())["functions"]
        try:
            return web.json_response({"killed": self._connected().runtime.kill_working(names)})
        except FunctionNotFoundError as error:
            raise web.HTTPNotFound(text=f"there is no function {error}") from None

    async def _invoke(self, request: web.Request) -> web.Response:
        request_id = str(uuid.uuid4())
        try:
            return await self._run_function(request, request_id)
        except _LambdaError as error:
            return web.json_response(
                {"Type": "User", "Message": error.message, "message": error.message},
                status=error.status,
                headers={"x-amzn-RequestId": request_id, "X-Amzn-ErrorType": error.code},
            )

    async def _run_function(self, request: web.Request, request_id: str) -> web.Response:
        runtime = self._connected().runtime
        given_name = unquote(request.match_info["name"])
        payload = await request.content.read() or b"{}"
        _check_payload(payload)
        match = _FUNCTION_NAME.fullmatch(given_name)
        name = match["name"] if match else given_name
        headers = {"x-amzn-RequestId": request_id}
        try:
            if request.headers.get("X-Amz-Invocation-Type") == "Event":
                runtime.invoke_later(name, payload, request_id)
                return web.Response(status=202, headers=headers)
            result = await runtime.invoke(name, payload, request_id)
        except FunctionNotFoundError:
            raise _LambdaError(
                404, "ResourceNotFoundException", f"Function not found: {given_name}"
            ) from None
        except TooManyRequestsError:
            raise _LambdaError(429, "TooManyRequestsException", "Rate Exceeded.") from None
        headers["X-Amz-Executed-Version"] = "$LATEST"
        if result.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=result.payload, headers=headers, content_type="application/json")

    async def _serve_function(self, request: web.Request) -> web.Response:
        """Answer a plain request by a function."""
        backends, name = self._connected(), request.match_info["name"]
        prefix = "/" + request.path.split("/")[1] + "/"
        if prefix != FUNCTION_URLS_PATH:
            return await self._answer_by(backends.runtime, name, request, prefix)
        auth = backends.runtime.find_url_auth(name)
        if not auth:
            raise web.HTTPNotFound(text=f"no function {name} has a URL")
        try:
            if auth == "AWS_IAM" and self._url_callers is not None:
                await _check_signature(request, self._url_callers)
            response = await self._answer_by(backends.runtime, name, request, prefix)
        except web.HTTPException as error:
            backends.take_url_answer(name, error.status)
            raise
        backends.take_url_answer(name, response.status)
        return response

    async def _answer_by(
        self, runtime: LambdaRuntime, name: str, request: web.Request, prefix: str
    ) -> web.Response:
        request_id = str(uuid.uuid4())
        parts: dict[str, Any] = {
            "method": request.method,
            "path": request.rel_url.raw_path.removeprefix(prefix + name),
            "query": request.rel_url.raw_query_string,
            "headers": request.headers,
            "body": await request.read(),
        }
        event = (
            http_events.make_url_event(**parts, request_id=request_id)
            if prefix == FUNCTION_URLS_PATH
            else http_events.make_balancer_event(**parts)
        )
        try:
            result = await runtime.invoke(name, json.dumps(event).encode(), request_id)
        except FunctionNotFoundError:
            raise web.HTTPNotFound(text=f"there is no function {name}") from None
        except TooManyRequestsError:
            raise web.HTTPTooManyRequests from None
        if result.failed:
            raise web.HTTPBadGateway(text="the function failed: --log-level DEBUG shows why")
        try:
            return http_events.make_response(result.payload)
        except http_events.AnswerError as error:
            raise web.HTTPBadGateway(text=str(error)) from None

    async def _greet(self, request: web.Request) -> web.StreamResponse:
        """Show a browser the pages; to an SDK the same path lists the buckets."""
        if is_browser(request):
            await _redirect_to_pages(request)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if is_expired(request.query, datetime.now(UTC)):
            return _expired_url()
        if "/autoscaling/" not in request.headers.get("Authorization", ""):
            return await self._forward(request, request.content if request.can_read_body else None)
        body = await request.read()
        if parse_qs(body.decode()).get("Action") == ["DescribeInstanceRefreshes"]:
            return _no_instance_refreshes()
        async with self._capacity_lock:
            refusal = await asyncio.to_thread(self._refuse_capacity, body)
            if refusal is not None:
                return _autoscaling_error(refusal)
            return await self._forward(request, body)

    def _refuse_capacity(self, body: bytes) -> str | None:
        """Say why Auto Scaling would refuse a request that moto takes."""
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        if form.get("Action") not in _CAPACITY_RULES or "DesiredCapacity" not in form:
            return None
        name = form.get("AutoScalingGroupName", "")
        answer = self._connected().autoscaling.describe_auto_scaling_groups(
            AutoScalingGroupNames=[name]
        )
        if not answer["AutoScalingGroups"]:
            return f"AutoScalingGroup name not found - no such group: {name}"
        group = answer["AutoScalingGroups"][0]
        return _CAPACITY_RULES[form["Action"]](
            int(form["DesiredCapacity"]),
            int(form.get("MinSize", group["MinSize"])),
            int(form.get("MaxSize", group["MaxSize"])),
        )

    async def _forward(
        self, request: web.Request, body: bytes | aiohttp.StreamReader | None
    ) -> web.StreamResponse:
        target = URL(self._connected().moto + request.raw_path, encoded=True)
        async with self._session.request(
            request.method,
            target,
            data=body,
            headers=_end_to_end(request.headers),  # The Host header too: moto builds URLs of it.
            skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                await response.write(chunk)
            await response.write_eof()
            return response


def is_browser(request: web.Request) -> bool:
    """Whether a person opened this address: no SDK asks for HTML unsigned."""
    return (
        "text/html" in request.headers.get("Accept", "")
        and "Authorization" not in request.headers
        and not request.query_string
    )


def is_expired(query: Mapping[str, str], now: datetime) -> bool:
    """Whether a presigned URL's time is over; moto takes one for ever."""
    try:
        signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime = timedelta(seconds=int(query["X-Amz-Expires"]))
    except (KeyError, ValueError):
        return False
    return now > signed_at + lifetime


async def _check_signature(request: web.Request, callers: Mapping[str, str]) -> None:
    refusal = refuse_signature(
        request.method,
        str(request.url),
        request.headers,
        await request.read(),
        callers=callers,
        now=datetime.now(UTC),
    )
    if refusal is not None:
        raise web.HTTPForbidden(
            text=json.dumps({"Message": refusal}), content_type="application/json"
        )


async def _redirect_to_pages(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(PAGES_PATH)


def refuse_desired_capacity(desired: int, least: int, most: int) -> str | None:
    """Give AWS's words for a SetDesiredCapacity out of the group's bounds."""
    bound, limit = ("above max", most) if desired > most else ("below min", least)
    if least <= desired <= most:
        return None
    return (
        f"New SetDesiredCapacity value {desired} is {bound} value {limit} for the AutoScalingGroup."
    )


def refuse_group_update(desired: int, least: int, most: int) -> str | None:
    """Give AWS's words for an UpdateAutoScalingGroup whose numbers contradict each other."""
    if least <= desired <= most:
        return None
    return (
        f"Desired capacity:{desired} must be between the specified min size:{least} "
        f"and max size:{most}"
    )


# Each takes the desired capacity, the least and the most.
_CAPACITY_RULES: Final[dict[str, Callable[[int, int, int], str | None]]] = {
    "SetDesiredCapacity": refuse_desired_capacity,
    "UpdateAutoScalingGroup": refuse_group_update,
}


def _end_to_end(headers: Any) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP
    )


def _check_payload(payload: bytes) -> None:
    if len(payload) > _PAYLOAD_LIMIT:
        raise _LambdaError(
            413,
            "RequestTooLargeException",
            f"Request must be smaller than {_PAYLOAD_LIMIT} bytes for the InvokeFunction operation",
        )
    try:
        json.loads(payload)
    except ValueError as error:
        raise _LambdaError(
            400,
            "InvalidRequestContentException",
            f"Could not parse request body into json: {error}",
        ) from error


def _no_instance_refreshes() -> web.Response:
    """Answer what moto cannot: nobody starts an instance refresh here."""
    namespace = "http://autoscaling.amazonaws.com/doc/2011-01-01/"
    body = (
        f'<DescribeInstanceRefreshesResponse xmlns="{namespace}">'
        "<DescribeInstanceRefreshesResult><InstanceRefreshes/></DescribeInstanceRefreshesResult>"
        f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        "</DescribeInstanceRefreshesResponse>"
    )
    return web.Response(text=body, content_type="text/xml")


def _expired_url() -> web.Response:
    body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    return web.Response(status=403, text=body, content_type="application/xml")


def _autoscaling_error(message: str, code: str = "ValidationError") -> web.Response:
    request_id = str(uuid.uuid4())
    body = (
        '<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error>'
        f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
        f"</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return web.Response(
        status=400,
        text=body,
        content_type="text/xml",
        headers={"x-amzn-RequestId": request_id},
    )
