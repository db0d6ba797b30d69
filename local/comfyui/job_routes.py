"""Routes that show prompts as jobs and, in newer versions, cancel them: /api/jobs."""

from typing import Any

from aiohttp import web

from local.comfyui.prompt_ids import is_canonical_id
from local.comfyui.server_state import ServerState

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_SORT_KEYS = ("created_at", "execution_duration")
_SORT_ORDERS = ("asc", "desc")


_MAX_IDS = 100


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
            statuses = _read_statuses(query.get("status"))
            sort_by = _read_choice("sort_by", query.get("sort_by", "created_at"), _SORT_KEYS)
            sort_order = _read_choice("sort_order", query.get("sort_order", "desc"), _SORT_ORDERS)
            limit = _read_number("limit", query.get("limit"), lowest=1)
            offset = _read_number("offset", query.get("offset"), lowest=0) or 0
            ids = _read_ids(query.get("ids")) if self._profile.filters_jobs_by_id else None
        except BadRequestError as error:
            return web.json_response(error.answer, status=400)
        workflow_id = query.get("workflow_id")
        jobs = [
            job
            for job in self._read_jobs()
            if job["status"] in statuses
            and (workflow_id is None or job.get("workflow_id") == workflow_id)
            and (ids is None or job["id"] in ids)
        ]
        sort_key = _duration if sort_by == "execution_duration" else _creation
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
        entry = self._queue.read_history_entry(job_id)
        if entry is not None:
            return web.json_response(self._profile.jobs.describe_ended_in_full(entry))
        running, pending = self._queue.read()
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
            return web.json_response({"error": "Invalid JSON body"}, status=400)
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


def _read_statuses(value: str | None) -> tuple[str, ...]:
    if value is None:
        return STATUSES
    wanted = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    unknown = [part for part in wanted if part not in STATUSES]
    if unknown:
        raise BadRequestError(
            f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
        )
    return wanted


def _read_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadRequestError(f"{name} must be one of: {', '.join(choices)}")
    return value


def _read_number(name: str, value: str | None, lowest: int) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError as error:
        raise BadRequestError(f"{name} must be an integer") from error
    if number < lowest:
        raise BadRequestError(f"{name} must be at least {lowest}")
    return number


def _read_ids(value: str | None) -> list[str] | None:
    """Return the wanted ids; an empty list is no job at all, None every one."""
    if value is None:
        return None
    ids = list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    return _check_ids("ids", ids)


def _read_job_ids(body: Any) -> list[str]:
    ids = body.get("job_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not ids:
        raise BadRequestError("job_ids must be a non-empty list")
    return _check_ids("job_ids", ids)


def _check_ids(name: str, ids: list[Any]) -> list[str]:
    if len(ids) > _MAX_IDS:
        raise BadRequestError(f"{name} must contain at most {_MAX_IDS} values")
    invalid = [job_id for job_id in ids if not is_canonical_id(job_id)]
    if invalid:
        raise BadRequestError(f"{name} contains invalid id(s)", invalid_ids=invalid)
    return ids


def _creation(job: dict[str, Any]) -> int:
    return int(job["create_time"])


def _duration(job: dict[str, Any]) -> int:
    if "execution_end_time" not in job:
        return 0
    return int(job["execution_end_time"] - job["execution_start_time"])
