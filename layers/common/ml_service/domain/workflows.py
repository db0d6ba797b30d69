"""The workflow catalog: which message runs which graph on which fleet."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ml_service.domain.errors import RefusalCode, RefusedMessageError, WorkflowError
from ml_service.domain.graph_faults import find_faults
from ml_service.domain.graphs import Graph
from ml_service.domain.manifests import Workflow


class WorkflowCatalog:
    """All workflows of a stage with their graphs, by name, by subject and by prompt file."""

    def __init__(self, workflows: Iterable[tuple[Workflow, Graph]]) -> None:
        self._graphs: dict[str, Graph] = {}
        self._workflows: dict[str, Workflow] = {}
        self._by_subject: dict[str, list[Workflow]] = defaultdict(list)
        self._by_prompt_file: dict[str, Workflow] = {}
        for workflow, graph in workflows:
            if workflow.workflow in self._workflows:
                raise WorkflowError(f"Workflow {workflow.workflow} is there twice.")
            if faults := find_faults(workflow, graph):
                file = f"{workflow.fleet}/{workflow.workflow}.json"
                raise WorkflowError(f"{file}: {'; '.join(map(str, faults))}")
            self._workflows[workflow.workflow] = workflow
            self._graphs[workflow.workflow] = graph
            for subject in workflow.subjects:
                self._by_subject[subject].append(workflow)
            for prompt_file in workflow.prompt_files:
                rival = self._by_prompt_file.setdefault(prompt_file, workflow)
                if rival is not workflow:
                    names = f"{rival.workflow} and {workflow.workflow}"
                    raise WorkflowError(f"{names} both claim the prompt file {prompt_file}.")
        for subject, rivals in self._by_subject.items():
            _check_selections(subject, rivals)

    def __iter__(self) -> Iterator[Workflow]:
        return iter(self._workflows.values())

    def classify(self, subject: str, payload: Mapping[str, object]) -> Workflow:
        """The workflow that a message asks for; subjects match exactly."""
        workflows = self._by_subject.get(subject)
        if not workflows:
            raise RefusedMessageError(
                RefusalCode.UNKNOWN_SUBJECT, "The message's Subject is unknown."
            )
        members, counts = set(), []
        for workflow in workflows:
            selection = workflow.selection
            if selection is None:
                return workflow
            entries = payload.get(selection.member)
            if isinstance(entries, list) and len(entries) == selection.count:
                return workflow
            members.add(selection.member)
            counts.append(str(selection.count))
        raise RefusedMessageError(
            RefusalCode.INVALID_MESSAGE,
            f"{', '.join(members)} must be a list of {' or '.join(counts)} entries.",
        )

    def choose(self, name: str) -> Workflow:
        """The workflow that a native message names; raises RefusedMessageError."""
        try:
            return self._workflows[name]
        except KeyError:
            raise RefusedMessageError(
                RefusalCode.UNKNOWN_WORKFLOW, "The message's workflow is unknown."
            ) from None

    def choose_by_file(self, prompt_file: str) -> Workflow:
        """The workflow that a prompt_file means; raises RefusedMessageError."""
        try:
            return self._by_prompt_file[prompt_file]
        except KeyError:
            known = ", ".join(sorted(self._by_prompt_file))
            raise RefusedMessageError(
                RefusalCode.UNKNOWN_WORKFLOW, f"prompt_file must be one of: {known}."
            ) from None

    def workflow(self, name: str) -> Workflow:
        """A workflow by its name; raises WorkflowError if a job outlived its workflow."""
        try:
            return self._workflows[name]
        except KeyError:
            raise WorkflowError(f"There is no workflow {name}.") from None

    def graph(self, name: str) -> Graph:
        """The graph of a workflow, as it lies in its file."""
        self.workflow(name)
        return self._graphs[name]


def _check_selections(subject: str, workflows: Sequence[Workflow]) -> None:
    """Raise WorkflowError unless every message of a subject means one workflow at most."""
    selections = [w.selection for w in workflows]
    members = {s.member for s in selections if s is not None}
    counts = {s.count for s in selections if s is not None}
    if len(workflows) > 1 and (len(members) != 1 or len(counts) != len(workflows)):
        names = ", ".join(w.workflow for w in workflows)
        raise WorkflowError(
            f"Subject {subject} has several workflows ({names}): each needs a selection by the "
            "same member with a count of its own."
        )
