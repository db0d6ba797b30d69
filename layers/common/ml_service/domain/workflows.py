"""The workflow catalog: which subject runs which graph on which fleet, with which inputs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ml_service.domain.errors import RefusalCode, RefusedMessageError, WorkflowError

Graph: TypeAlias = Mapping[str, Mapping[str, object]]
"""An API-format ComfyUI graph: node id to class_type and inputs."""

OUTPUT_PREFIX = "outputPrefix"
SEED = "seed"
COMPUTED_INPUTS = frozenset({OUTPUT_PREFIX, SEED})
"""Inputs that every workflow may bind without declaring them."""
MAIN_UPLOAD_NAME = "{prefix}.{extension}"
"""The name of the input after which the others and the outputs are named."""
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "mp4", "mp3"})
"""Extensions of input files, in any case; whether a node can read the file, the node will say."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OutputRole(StrEnum):
    """What an output file is to the backend."""

    MAIN = "main"
    COVER = "cover"
    THUMBNAIL = "thumbnail"
    MASK = "mask"


class When(_Frozen):
    """Holds if a choice of the job has a value."""

    input: str
    equals: int


class MediaInput(_Frozen):
    """An input file: an S3 object that is uploaded to the instance before the prompt."""

    type: Literal["image", "audio", "video"]
    member: str
    """The payload member with the S3 key, or with the list of keys if ``index`` is given."""
    index: int | None = Field(default=None, ge=0)
    bucket_member: str = "S3Bucket"
    """Falls back to S3Bucket where absent or blank."""
    upload_name: str = MAIN_UPLOAD_NAME
    """Name on the instance; {prefix} is the output prefix, {workflow} the workflow's name,
    {extension} the key's own. Exactly one input of a workflow, the main one, keeps the default."""
    default_file: str | None = None
    """For a key without a supported extension: the object of this name below it."""
    absent_name: str | None = None
    """What a graph gets if the message names no file; without it the file is required."""
    required_when: When | None = None
    """Makes a file with an ``absent_name`` required."""
    extensions: frozenset[str] = EXTENSIONS


class TextInput(_Frozen):
    """A text; runs of tabs and line ends become one blank, a blank text takes the default."""

    type: Literal["text"]
    member: str
    default: str
    max_length: int = 10_000


class NumberInput(_Frozen):
    """A number that is not negative; absent means the default, above the maximum means it."""

    type: Literal["number"]
    member: str
    default: float = 0
    zero_means: float | None = None
    maximum: float | None = None


class ChoiceInput(_Frozen):
    """A whole number of a range; one that is absent or out of range takes the default."""

    type: Literal["choice"]
    member: str
    index: int | None = Field(default=None, ge=0)
    """Place in the member's list; a list of another length than ``length`` is as good as none."""
    length: int | None = Field(default=None, gt=0)
    minimum: int = 1
    maximum: int
    default: int
    refused: Mapping[int, str] = Field(default_factory=dict)
    """Values for which there is no workflow, each with the sentence that the backend gets."""


Input: TypeAlias = Annotated[
    MediaInput | TextInput | NumberInput | ChoiceInput, Field(discriminator="type")
]


class Selection(_Frozen):
    """Which of the workflows of one subject a message means: by the length of a list."""

    member: str
    count: int = Field(ge=0)


class Binding(_Frozen):
    """One place of the graph that takes an input's value."""

    node: str
    input: str
    suffix: str = ""
    """Appended to a text value, so that one prefix can name several files."""


class Outputs(_Frozen):
    """What files the graph saves."""

    kind: Literal["image", "audio", "video"]
    roles: Mapping[OutputRole, str] = Field(default_factory=dict)
    """A part of the file name for each role; one single file is always the main one."""


class Workflow(_Frozen):
    """A manifest: how one workflow is chosen, fed and read."""

    workflow: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    fleet: str
    subject: str
    selection: Selection | None = None
    """Needed where a subject has several workflows."""
    inputs: Mapping[str, Input]
    bindings: Mapping[str, Sequence[Binding]]
    outputs: Outputs
    expected_seconds: float = Field(gt=0)
    """Run time of a typical prompt, for estimates."""
    run_seconds: int = Field(default=3600, gt=0, le=18_000)
    """A job that runs longer than this, counted from its admission, has failed."""

    @model_validator(mode="after")
    def _has_consistent_inputs(self) -> "Workflow":
        unknown = self.bindings.keys() - self.inputs.keys() - COMPUTED_INPUTS
        if unknown:
            raise ValueError(f"bindings of undeclared inputs: {', '.join(sorted(unknown))}")
        unbound = self.inputs.keys() - self.bindings.keys()
        if unbound:
            raise ValueError(f"inputs without a binding: {', '.join(sorted(unbound))}")
        if OUTPUT_PREFIX not in self.bindings:
            raise ValueError(f"no binding for {OUTPUT_PREFIX}: results could not be told apart")
        if len([name for name, media in self.media_inputs() if is_main(media)]) > 1:
            raise ValueError("more than one media input keeps the default upload_name")
        for name, media in self.media_inputs():
            when = media.required_when
            if when is not None and not isinstance(self.inputs.get(when.input), ChoiceInput):
                raise ValueError(f"required_when of {name} names {when.input}, which is no choice")
        return self

    def media_inputs(self) -> Iterable[tuple[str, MediaInput]]:
        """Every declared input file with its name."""
        return ((n, i) for n, i in self.inputs.items() if isinstance(i, MediaInput))


def is_main(media: MediaInput) -> bool:
    """Whether this is the input after which the others and the outputs are named."""
    return media.upload_name == MAIN_UPLOAD_NAME


class WorkflowCatalog:
    """All workflows of a stage with their graphs, by name and by subject."""

    def __init__(self, workflows: Iterable[tuple[Workflow, Graph]]) -> None:
        self._graphs: dict[str, Graph] = {}
        self._workflows: dict[str, Workflow] = {}
        self._by_subject: dict[str, list[Workflow]] = defaultdict(list)
        for workflow, graph in workflows:
            if workflow.workflow in self._workflows:
                raise WorkflowError(f"Workflow {workflow.workflow} is there twice.")
            check_bindings(workflow, graph)
            self._workflows[workflow.workflow] = workflow
            self._by_subject[workflow.subject].append(workflow)
            self._graphs[workflow.workflow] = graph
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


def check_bindings(workflow: Workflow, graph: Graph) -> None:
    """Raise WorkflowError where a binding names a place that the graph does not have."""
    for name, bindings in workflow.bindings.items():
        for binding in bindings:
            node = graph.get(binding.node)
            inputs = node.get("inputs") if node is not None else None
            if not isinstance(inputs, Mapping) or binding.input not in inputs:
                raise WorkflowError(
                    f"{workflow.workflow}: {name} is bound to input {binding.input} of node "
                    f"{binding.node}, which the graph does not have."
                )
