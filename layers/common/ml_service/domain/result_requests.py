"""How the backend asks for results, and what it gets: its own spelling, member for member."""

from pydantic import BaseModel, ConfigDict, Field


class _Query(BaseModel):
    """What a job's message said; the members Env and S3Bucket are there and decide nothing."""

    model_config = ConfigDict(frozen=True, validate_by_alias=True)

    group_id: int = Field(alias="GroupId", ge=0)
    input_key: str | None = Field(default=None, alias="InputS3Key", max_length=1024)
    partial_name: str | None = Field(default=None, alias="PartialName", max_length=128)


class ResultQuery(_Query):
    """Asks for the result of a video or audio job."""

    workflow: str = Field(alias="Workflow")


class PhotoResultQuery(_Query):
    """Asks for the result of a photo job."""

    workflow: str = Field(alias="PhotoWorkflow")


class ResultKey(BaseModel):
    """Where the newest file of a job is."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    """``not_found`` while there is none; a sentence if there is no such workflow."""


class ResultKeys(BaseModel):
    """Where the files of a job are, an empty text for one that there is not."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True, validate_by_name=True)

    bucket: str
    main_key: str = Field(alias="mainKey")
    """``not_found`` until all are there; a sentence if there is no such workflow."""
    cover_key: str = Field(default="", alias="coverKey")
    thumbnail_key: str = Field(default="", alias="thumbnailKey")
    mask_key: str = Field(default="", alias="maskKey")
