"""Routes that show prompts as jobs and, in newer versions, cancel them: /api/jobs."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from local.comfyui.prompt_ids import is_canonical_id
from local.comfyui.server_state import ServerState

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")


class BadRequestError(Exception):
    """When a query or a body of /api/jobs has a value that it does not take."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.answer = {"error": message, **more}


class JobRoutes:
    """Handlers for jobs; unlike the others they exist under /api only."""

    def __init__(self, state: ServerState) -> None:
        self._queue = state.queue
        self._worker = state.worker
        self._profile = state.profile

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their prefix, that the version has."""
        routes = [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
        ]
        if self._profile.cancels_jobs:
            routes += [
                web.post("/api/jobs/cancel", self.cancel_jobs),
                web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
            ]
        return routes

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Answer the jobs of some statuses, sorted, page by page."""
        query = request.query
        try:
            statuses = _read_statuses(query.get("status", ""))
            sort_key = _SORT_KEYS[_read_choice(query, "sort_by", "created_at", tuple(_SORT_KEYS))]
            sort_order = _read_choice(query, "sort_order", "desc", ("asc", "desc"))
            limit = _read_limit(query)
            offset = max(_read_integer(query, "offset") or 0, 0)
        except BadRequestError as error:
            return web.json_response(error.answer, status=400)
        workflow_id = query.get("workflow_id")
        jobs = [
            job
            for job in self._read_jobs()
            if job["status"] in statuses
            and (not workflow_id or job.get("workflow_id") == workflow_id)
        ]
        jobs.sort(key=sort_key, reverse=sort_order == "desc")
        page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
        pagination = {
            "offset": offset,
            "limit": limit,
            "total": len(jobs),
            "has_more": offset + len(page) < len(jobs),
        }
        return web.json_response({"jobs": page, "pagination": pagination})

    async def get_job(self, request: web.Request) -> web.Response:
        """Answer one job, with outputs and workflow once it has ended."""
        job_id = request.match_info["job_id"]
        # The queue first: a job that ends meanwhile is then found in the history.
        running, pending = self._queue.read()
        entry = self._queue.read_history_entry(job_id)
        if entry is not None:
            return web.json_response(self._profile.jobs.describe_ended_in_full(entry))
        for status, items in (("in_progress", running), ("pending", pending)):
            for item in items:
                if item.prompt_id == job_id:
                    described = self._profile.jobs.describe_waiting_in_full(item, status)
                    return web.json_response(described)
        return web.json_response({"error": "Job not found"}, status=404)

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Drop or interrupt a job; tell whether it waited or ran."""
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        """Drop or interrupt several jobs; tell whether any of them waited or ran."""
        try:
            ids = _read_job_ids(await request.json())
        except BadRequestError as error:
            return web.json_response(error.answer, status=400)
        except ValueError:
            return web.json_response({"error": "Request body must be valid JSON"}, status=400)
        cancelled = [self._cancel(job_id) for job_id in ids]
        return web.json_response({"cancelled": any(cancelled)})

    def _cancel(self, job_id: str) -> bool:
        return self._queue.cancel(job_id, self._worker.interrupt)

    def _read_jobs(self) -> list[dict[str, Any]]:
        running, pending = self._queue.read()
        describer = self._profile.jobs
        return [
            *(describer.describe_waiting(item, "in_progress") for item in running),
            *(describer.describe_waiting(item, "pending") for item in pending),
            *(describer.describe_ended(entry) for entry in self._queue.read_history().values()),
        ]


def _read_statuses(value: str) -> tuple[str, ...]:
    if not value:
        return STATUSES
    wanted = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    unknown = [part for part in wanted if part not in STATUSES]
    if unknown:
        raise BadRequestError(
            f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
        )
    return wanted


def _read_choice(
    query: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]
) -> str:
    value = query.get(name, default).lower()
    if value not in choices:
        raise BadRequestError(f"{name} must be {' or '.join(map(repr, choices))}")
    return value


def _read_limit(query: Mapping[str, str]) -> int | None:
    limit = _read_integer(query, "limit")
    if limit is not None and limit <= 0:
        raise BadRequestError("limit must be a positive integer")
    return limit


def _read_integer(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError as error:
        raise BadRequestError(f"{name} must be an integer") from error


def _read_job_ids(body: Any) -> list[str]:
    ids = body.get("job_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list):
        raise BadRequestError("job_ids must be a list")
    invalid = [
        job_id if isinstance(job_id, str) else repr(job_id)
        for job_id in ids
        if not is_canonical_id(job_id)
    ]
    if invalid:
        raise BadRequestError("job_ids contains invalid id(s)", invalid_ids=invalid)
    return ids


def _creation(job: dict[str, Any]) -> int:
    return int(job["create_time"])


def _duration(job: dict[str, Any]) -> int:
    if "execution_end_time" not in job:
        return 0
    return int(job["execution_end_time"] - job["execution_start_time"])


_SORT_KEYS: Mapping[str, Callable[[dict[str, Any]], int]] = {
    "created_at": _creation,
    "execution_duration": _duration,
}
