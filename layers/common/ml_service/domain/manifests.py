"""Manifests: how each workflow is chosen, fed and read. ``workflows/schema`` is made from here."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

OUTPUT_PREFIX = "outputPrefix"
SEED = "seed"
COMPUTED_INPUTS = frozenset({OUTPUT_PREFIX, SEED})
"""Inputs that every workflow has without declaring them."""
MAIN_UPLOAD_NAME = "{prefix}.{extension}"
"""The name of the input after which the others and the outputs are named."""
Extension: TypeAlias = Literal["jpeg", "jpg", "mp3", "mp4", "png", "webp"]
EXTENSIONS: frozenset[Extension] = frozenset(get_args(Extension))
"""Extensions of input files, in any case."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused, unless a manifest says otherwise: decoded they fill gigabytes."""
RANDOM_SEEDS = 2**31 - 1
"""Random seeds are less than this."""
MAX_SEED = 2**64 - 1
"""The largest seed that ComfyUI's samplers take."""

InputName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")]
Token: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{3,}$")]
PromptFile: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
PictureFormat: TypeAlias = Literal["jpeg", "png", "webp"]
OutOfRange: TypeAlias = Literal["refuse", "clamp", "default"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class OutputRole(StrEnum):
    """What an output file is to the backend."""

    MAIN = "main"
    COVER = "cover"
    THUMBNAIL = "thumbnail"
    MASK = "mask"


ROLE_PATTERNS: Mapping[OutputRole, str] = {
    OutputRole.MAIN: "_608x1080",
    OutputRole.COVER: "_608x418",
    OutputRole.THUMBNAIL: "_128x128",
    OutputRole.MASK: "_mask",
}
"""What tells the files of a result apart, unless a manifest says otherwise."""


class When(_Frozen):
    """Holds if an integer input of the job has a value."""

    input: InputName
    equals: int


class _Input(_Frozen):
    member: str = ""
    """The payload member with the value; left out, it is the input's own name."""
    index: int | None = Field(default=None, ge=0)
    """The value's place, if the member is a list."""

    def member_of(self, name: str) -> str:
        """The payload member of the input that has this name."""
        return self.member or name


class MediaInput(_Input):
    """An input file: an S3 object that is uploaded to the instance before the prompt."""

    type: Literal["image", "audio", "video"]
    bucket_member: str = "S3Bucket"
    """The payload member with the bucket; S3Bucket is used where it is absent or blank."""
    upload_name: str = MAIN_UPLOAD_NAME
    """Name on the instance; {prefix} is the output prefix, {workflow} the workflow's name,
    {extension} the key's own. Exactly one input of a workflow, the main one, keeps the default."""
    default_file: str | None = None
    """For a key without an accepted extension: the object of this name below it."""
    absent_name: str | None = None
    """What the graph gets if the message names no file; without it the file is required."""
    required_when: When | None = None
    """Makes a file with an absent_name required."""
    extensions: frozenset[Extension] = EXTENSIONS
    """The extensions that are accepted, in any case. Where a required_when does not hold, the graph
    makes no use of the file, and it may have any that the service knows."""
    max_bytes: int | None = Field(default=None, gt=0)
    """The largest file that is accepted, below the service's own limit of 500 MB."""
    max_pixels: int = Field(default=MAX_PIXELS, gt=0)
    """The most pixels that a picture may have, as its header tells them."""

    @property
    def is_main(self) -> bool:
        """Whether this is the input after which the others and the outputs are named."""
        return self.upload_name == MAIN_UPLOAD_NAME


class TextInput(_Input):
    """A text. A blank one takes the default; without a default it is required."""

    type: Literal["text"]
    default: str | None = None
    max_length: int = Field(default=10_000, gt=0)
    """In characters."""
    join_lines: bool = False
    """Makes one blank of every run of tabs and line ends."""


class _RangedInput(_Input):
    length: int | None = Field(default=None, gt=0)
    """With an index: a list of another length is as good as none."""
    below: OutOfRange = "refuse"
    """What becomes of a value below the minimum."""
    above: OutOfRange = "refuse"
    """What becomes of a value above the maximum."""


class IntegerInput(_RangedInput):
    """A whole number; without a default it is required."""

    type: Literal["integer"]
    minimum: int | None = None
    maximum: int | None = None
    default: int | None = None
    refused: Mapping[int, str] = Field(default_factory=dict)
    """Values for which there is no workflow, each with the sentence that the sender gets."""

    @model_validator(mode="after")
    def _has_consistent_range(self) -> Self:
        _check_range(self)
        return self


class NumberInput(_RangedInput):
    """A number; without a default it is required."""

    type: Literal["number"]
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    zero_means: float | None = None
    """Taken in place of 0."""

    @model_validator(mode="after")
    def _has_consistent_range(self) -> Self:
        _check_range(self)
        return self


class BooleanInput(_Input):
    """True or false; without a default it is required."""

    type: Literal["boolean"]
    default: bool | None = None


class EnumInput(_Input):
    """One of some texts; without a default it is required."""

    type: Literal["enum"]
    values: tuple[str, ...] = Field(min_length=1)
    default: str | None = None
    unknown: Literal["refuse", "default"] = "refuse"
    """What becomes of any other text."""

    @model_validator(mode="after")
    def _has_known_default(self) -> Self:
        if self.default is not None and self.default not in self.values:
            raise ValueError("default is none of the values")
        if self.unknown == "default" and self.default is None:
            raise ValueError("there is no default to take")
        return self


class ListInput(_Input):
    """A list of texts or numbers; without a default it is required."""

    type: Literal["list"]
    of: Literal["text", "integer", "number"]
    min_items: int = Field(default=0, ge=0)
    max_items: int = Field(default=100, ge=0)
    default: tuple[str | int | float, ...] | None = None
    separator: str | None = None
    """Makes one text of the items, for a node that takes a text."""


Input: TypeAlias = Annotated[
    MediaInput | TextInput | IntegerInput | NumberInput | BooleanInput | EnumInput | ListInput,
    Field(discriminator="type"),
]


class Selection(_Frozen):
    """Which of the workflows of one subject a message means: by the length of a list."""

    member: str
    count: int = Field(ge=0)


class Binding(_Frozen):
    """One place of the graph that takes an input's value: an input of the one node that fits."""

    node: str | None = None
    """The node's id."""
    title: str | None = None
    """The node's title, as ComfyUI shows it."""
    class_type: str | None = None
    """The node's class."""
    input: str
    """The node's input, as the graph's file names it."""
    suffix: str = ""
    """Appended to a text value, so that one prefix can name several files."""

    @model_validator(mode="after")
    def _names_a_node(self) -> Self:
        if self.node is None and self.title is None and self.class_type is None:
            raise ValueError("a binding needs node, title or class_type")
        return self


class SeedPolicy(_Frozen):
    """Where a job's seed comes from if its message gives none."""

    fixed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """The same seed for every job; left out, each job gets a random one."""


class Conversion(_Frozen):
    """How pictures are stored, whatever format the graph saves."""

    format: PictureFormat
    quality: int = Field(default=90, ge=0, le=100)
    """Not of a PNG, which loses nothing."""


class Outputs(_Frozen):
    """What files the graph saves."""

    kind: Literal["image", "audio", "video"]
    roles: Mapping[OutputRole, str] = Field(default_factory=dict)
    """The roles that every result must have, each with the part of a file name that tells it.
    A single file is the main one by itself."""
    convert: Conversion | None = None
    hand_off_member: str | None = None
    """The payload member that says where a copy of the video goes to be converted further."""

    @property
    def role_patterns(self) -> Mapping[OutputRole, str]:
        """The part of a file name that tells each role."""
        return {**ROLE_PATTERNS, **self.roles}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.convert is not None and self.kind != "image":
            raise ValueError("only pictures can be converted")
        if self.hand_off_member is not None and self.kind != "video":
            raise ValueError("only videos can be handed off")
        return self


class Model(_Frozen):
    """A model file that the instance must have."""

    folder: str
    """The folder below ComfyUI's models, as checkpoints."""
    file: str


class Workflow(_Frozen):
    """A manifest: how one workflow is chosen, fed and read."""

    workflow: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """The workflow's name, which its files have too."""
    fleet: str
    """The group of instances that it runs on: the name of its folder."""
    subject: str | tuple[str, ...] = ()
    """The Subject or Subjects of the backend's messages that mean it."""
    selection: Selection | None = None
    """Needed where a subject has several workflows."""
    prompt_files: tuple[PromptFile, ...] = ()
    """Names under which a message's prompt_file may ask for it."""
    inputs: Mapping[InputName, Input]
    """What a job gives, by name."""
    tokens: Mapping[Token, InputName] = Field(default_factory=dict)
    """Words in the graph's texts that stand for an input, besides ___input___."""
    bindings: Mapping[InputName, tuple[Binding, ...]] = Field(default_factory=dict)
    """Which input of which node takes which value; not looked at in a graph with placeholders."""
    seed: SeedPolicy = SeedPolicy()
    outputs: Outputs
    expected_seconds: float = Field(gt=0)
    """Run time of a typical prompt, for estimates."""
    run_seconds: int = Field(default=3600, gt=0, le=18_000)
    """A job that runs longer than this, counted from its admission, has failed."""
    attempt_seconds: int | None = Field(default=None, gt=0, le=18_000)
    """A prompt that runs longer hangs, and is tried once more elsewhere; half of run_seconds."""
    deadline_seconds: int = Field(default=86_400, gt=0, le=1_209_600)
    """A job without a result so long after its receipt has expired."""
    models: tuple[Model, ...] = ()
    """Model files that the graph needs."""
    custom_nodes: tuple[str, ...] = ()
    """Folders below ComfyUI's custom_nodes that the graph needs."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every Subject that means this workflow; none if only native messages do."""
        return (self.subject,) if isinstance(self.subject, str) else self.subject

    @property
    def main_input(self) -> str | None:
        """The name of the file after which the others and the outputs are named."""
        return next((name for name, media in self.media_inputs() if media.is_main), None)

    @property
    def attempt_limit_seconds(self) -> int:
        """How long one prompt may run: two attempts fit into a run unless the manifest says so."""
        return self.attempt_seconds or max(1, self.run_seconds // 2)

    def media_inputs(self) -> Iterable[tuple[str, MediaInput]]:
        """Every declared input file with its name."""
        return ((n, i) for n, i in self.inputs.items() if isinstance(i, MediaInput))

    @model_validator(mode="after")
    def _has_consistent_inputs(self) -> Self:
        computed = self.inputs.keys() & COMPUTED_INPUTS
        if computed:
            raise ValueError(f"{', '.join(sorted(computed))} need not and cannot be declared")
        named = {**self.bindings, **dict.fromkeys(self.tokens.values())}
        unknown = named.keys() - self.inputs.keys() - COMPUTED_INPUTS
        if unknown:
            raise ValueError(f"undeclared inputs are bound: {', '.join(sorted(unknown))}")
        if len([name for name, media in self.media_inputs() if media.is_main]) > 1:
            raise ValueError("more than one media input keeps the default upload_name")
        for name, media in self.media_inputs():
            when = media.required_when
            if when is not None and not isinstance(self.inputs.get(when.input), IntegerInput):
                raise ValueError(f"required_when of {name} names {when.input}, which is no integer")
        return self


def make_schema() -> dict[str, object]:
    """The JSON Schema of a manifest, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Workflow.model_json_schema(),
        "title": "Workflow manifest of ml-service",
    }


def _check_range(declared: IntegerInput | NumberInput) -> None:
    low, high, default = declared.minimum, declared.maximum, declared.default
    if low is not None and high is not None and low > high:
        raise ValueError("minimum is above maximum")
    if default is None:
        if "default" in (declared.below, declared.above):
            raise ValueError("there is no default to take")
    elif (low is not None and default < low) or (high is not None and default > high):
        raise ValueError("default is out of range")
