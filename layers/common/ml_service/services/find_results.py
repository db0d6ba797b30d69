"""find_results: the backend's older way to a result, by what its message said instead of an id."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_service.domain.errors import WorkflowError
from ml_service.domain.inputs import make_output_prefix
from ml_service.domain.manifests import OutputRole
from ml_service.domain.result_requests import (
    PhotoResultQuery,
    ResultKey,
    ResultKeys,
    ResultQuery,
)
from ml_service.domain.results import RESULT_PREFIX, assign_roles
from ml_service.domain.workflows import WorkflowCatalog
from ml_service.ports import ResultStore

NOT_FOUND = "not_found"
"""Stands for the key of a result that is not there yet."""
_NEEDED = frozenset({OutputRole.MAIN, OutputRole.COVER, OutputRole.THUMBNAIL})
"""Without these a result of several files is not complete, whatever its manifest says."""


@dataclass(frozen=True)
class FindResults:
    """Lists results by the prefix that a job's message determines."""

    catalog: WorkflowCatalog
    results: ResultStore
    bucket: str

    def find_newest(self, query: ResultQuery | PhotoResultQuery) -> ResultKey:
        """The newest file of a job."""
        try:
            prefix = self._make_prefix(query)
        except WorkflowError as error:
            return ResultKey(bucket=self.bucket, key=str(error))
        keys = self._list_keys(prefix)
        return ResultKey(bucket=self.bucket, key=keys[0] if keys else NOT_FOUND)

    def find_roles(self, query: PhotoResultQuery) -> ResultKeys:
        """The newest file of each role, once the result is complete."""
        try:
            prefix = self._make_prefix(query)
        except WorkflowError as error:
            return ResultKeys(bucket=self.bucket, main_key=str(error))
        outputs = self.catalog.workflow(query.workflow).outputs
        roles = assign_roles(self._list_keys(prefix), outputs.role_patterns, output_prefix=prefix)
        is_complete = roles.keys() >= _NEEDED | outputs.roles.keys()
        return ResultKeys(
            bucket=self.bucket,
            main_key=roles[OutputRole.MAIN] if is_complete else NOT_FOUND,
            cover_key=roles.get(OutputRole.COVER, ""),
            thumbnail_key=roles.get(OutputRole.THUMBNAIL, ""),
            mask_key=roles.get(OutputRole.MASK, ""),
        )

    def _make_prefix(self, query: ResultQuery | PhotoResultQuery) -> str:
        return make_output_prefix(
            self.catalog.workflow(query.workflow),
            group_id=query.group_id,
            main_key=query.input_key or "",
            partial_name=query.partial_name or "",
        )

    def _list_keys(self, prefix: str) -> Sequence[str]:
        return self.results.list_keys(RESULT_PREFIX + prefix)
