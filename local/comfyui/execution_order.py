"""Decides in which order the nodes of a prompt run."""

from collections.abc import Callable


class ExecutionOrder:
    """The nodes that still have to run, each after those it takes values from.

    Of the nodes that could run, an output node comes first, then one that feeds an output node, so
    that a file is written as early as possible; this is ComfyUI's order.
    """

    def __init__(
        self,
        outputs: list[str],
        linked_to: Callable[[str], list[str]],
        is_cached: Callable[[str], bool],
    ) -> None:
        self._outputs = set(outputs)
        self._blockers: dict[str, set[str]] = {}
        waiting = list(reversed(outputs))
        while waiting:
            node_id = waiting.pop()
            if node_id in self._blockers:
                continue
            self._blockers[node_id] = set()
            if is_cached(node_id):
                continue
            sources = [source for source in linked_to(node_id) if not is_cached(source)]
            self._blockers[node_id].update(sources)
            waiting += sources

    @property
    def node_ids(self) -> list[str]:
        """The nodes that have not run yet."""
        return list(self._blockers)

    def next_node(self) -> str | None:
        """Return the node to run now, None when all have run."""
        ready = [node_id for node_id, blockers in self._blockers.items() if not blockers]
        for node_id in ready:
            if node_id in self._outputs:
                return node_id
        for node_id in ready:
            if any(
                node_id in self._blockers[output]
                for output in self._outputs & self._blockers.keys()
            ):
                return node_id
        return ready[0] if ready else None

    def mark_done(self, node_id: str) -> None:
        """Take a node out, which lets those behind it run."""
        del self._blockers[node_id]
        for blockers in self._blockers.values():
            blockers.discard(node_id)
