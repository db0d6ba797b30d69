"""ask_warm_up: an operator has an instance warmed up before the next look at its group does."""

from dataclasses import dataclass
from datetime import datetime

from ml_service.domain.errors import RequestError
from ml_service.ports import FleetStore, InstanceWarmer


@dataclass(frozen=True)
class AskWarmUp:
    """Begins a warm-up as the refresh of the registry does, so that two never run at once."""

    store: FleetStore
    warmer: InstanceWarmer

    def ask(self, fleet: str, instance_id: str, *, now: datetime) -> bool:
        """Whether this call began a warm-up; not if it is over or somebody is at it.

        Raises RequestError if the fleet has no such instance.
        """
        keys = [i.key for i in self.store.list_instances(fleet) if i.instance_id == instance_id]
        if not keys:
            raise RequestError(
                404, "INSTANCE_NOT_FOUND", f"Name an instance that {fleet} has at present."
            )
        # One that came back from a warm pool is new; what is left of its last start is gone soon.
        key = max(keys)
        began = self.store.begin_warm_up(fleet, key, at=now)
        if began:
            self.warmer.warm_up(fleet, key)
        return began
