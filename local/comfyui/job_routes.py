"""Routes that show prompts as jobs: /api/jobs."""

from typing import Any

from aiohttp import web

from local.comfyui.prompt_queue import PromptQueue, QueuedPrompt

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_SORT_KEYS = ("created_at", "execution_duration")
_SORT_ORDERS = ("asc", "desc")


class BadQueryError(Exception):
    """When a query parameter of /api/jobs has a value that it does not take."""


class JobRoutes:
    """Handlers for jobs; unlike the others they exist under /api only."""

    def __init__(self, queue: PromptQueue) -> None:
        self._queue = queue

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their prefix."""
        return [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Answer the jobs of some statuses, sorted, page by page."""
        query = request.query
        try:
            statuses = _read_statuses(query.get("status"))
            sort_by = _read_choice("sort_by", query.get("sort_by", "created_at"), _SORT_KEYS)
            sort_order = _read_choice("sort_order", query.get("sort_order", "desc"), _SORT_ORDERS)
            limit = _read_number("limit", query.get("limit"), lowest=1)
            offset = _read_number("offset", query.get("offset"), lowest=0) or 0
        except BadQueryError as error:
            return web.json_response({"error": str(error)}, status=400)
        workflow_id = query.get("workflow_id")
        jobs = [
            job
            for job in self._read_jobs()
            if job["status"] in statuses
            and (workflow_id is None or job.get("workflow_id") == workflow_id)
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
            return web.json_response(_describe_ended(entry) | _describe_details(entry))
        running, pending = self._queue.read()
        for status, items in (("in_progress", running), ("pending", pending)):
            for item in items:
                if item.prompt_id == job_id:
                    return web.json_response(_describe_waiting(item, status))
        return web.json_response({"error": "Job not found"}, status=404)

    def _read_jobs(self) -> list[dict[str, Any]]:
        running, pending = self._queue.read()
        return [
            *(_describe_waiting(item, "in_progress") for item in running),
            *(_describe_waiting(item, "pending") for item in pending),
            *(_describe_ended(entry) for entry in self._queue.read_history().values()),
        ]


def _read_statuses(value: str | None) -> tuple[str, ...]:
    if value is None:
        return STATUSES
    wanted = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    unknown = [part for part in wanted if part not in STATUSES]
    if unknown:
        raise BadQueryError(
            f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
        )
    return wanted


def _read_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadQueryError(f"{name} must be one of: {', '.join(choices)}")
    return value


def _read_number(name: str, value: str | None, lowest: int) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError as error:
        raise BadQueryError(f"{name} must be an integer") from error
    if number < lowest:
        raise BadQueryError(f"{name} must be at least {lowest}")
    return number


def _describe_waiting(item: QueuedPrompt, status: str) -> dict[str, Any]:
    return _describe(item.prompt_id, status, item.number, item.extra_data) | {"outputs_count": 0}


def _describe_ended(entry: dict[str, Any]) -> dict[str, Any]:
    number, prompt_id, _, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    if entry["status"]["completed"]:
        status = "completed"
    else:
        status = "cancelled" if "execution_interrupted" in messages else "failed"
    timestamps = [data["timestamp"] for data in messages.values()]
    outputs = [
        (node_id, kind, item)
        for node_id, shown in entry["outputs"].items()
        for kind, items in shown.items()
        if kind != "animated"
        for item in items
    ]
    described = _describe(prompt_id, status, number, extra_data) | {
        "execution_start_time": timestamps[0],
        "execution_end_time": timestamps[-1],
        "outputs_count": len(outputs),
    }
    if "execution_error" in messages:
        described["execution_error"] = messages["execution_error"]
    files = [output for output in outputs if isinstance(output[2], dict)]
    if files:
        node_id, kind, item = files[0]
        described["preview_output"] = {**item, "nodeId": node_id, "mediaType": kind}
    return described


def _describe_details(entry: dict[str, Any]) -> dict[str, Any]:
    _, _, prompt, extra_data, _ = entry["prompt"]
    return {
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": prompt, "extra_data": extra_data},
    }


def _describe(
    prompt_id: str, status: str, number: float, extra_data: dict[str, Any]
) -> dict[str, Any]:
    described = {
        "id": prompt_id,
        "status": status,
        "priority": number,
        "create_time": extra_data["create_time"],
    }
    extra_info = extra_data.get("extra_pnginfo") or {}
    workflow_id = (extra_info.get("workflow") or {}).get("id")
    return described if workflow_id is None else described | {"workflow_id": workflow_id}


def _creation(job: dict[str, Any]) -> int:
    return int(job["create_time"])


def _duration(job: dict[str, Any]) -> int:
    if "execution_end_time" not in job:
        return 0
    return int(job["execution_end_time"] - job["execution_start_time"])
