"""count_jobs: what a stage holds, every minute, for its dashboard and its alarms."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.stage_counts import StageCounts, count_stage
from ml_service.ports import FleetStore, JobStore


@dataclass(frozen=True)
class CountJobs:
    """Counts open jobs and instances."""

    fleets: Collection[str]
    jobs: JobStore
    store: FleetStore

    def count(self, now: datetime) -> StageCounts:
        """Count them."""
        instances = {name: self.store.list_instances(name) for name in self.fleets}
        return count_stage(self.jobs.list_open(), instances, now=now)
