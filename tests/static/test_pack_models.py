"""A folder of models comes into S3 as the instances expect it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
import yaml
from moto import mock_aws

from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.manifests import Model
from scripts.pack_models import INSTANCE_FOLDER, find_missing, main

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BUCKET = "some-models"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> "Iterator[S3Client]":
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("checkpoints/flux.safetensors", "loras/faces/smile.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        os.utime(path, (1, 1))
    (tmp_path / "loras" / "put_loras_here").touch()
    (tmp_path / "loras" / ".cache").write_text("x")
    return tmp_path


def list_keys(s3: "S3Client") -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_models_lie_by_kind_and_comfyui_is_told_of_each(s3: "S3Client", folder: Path) -> None:
    assert main(["pulid", str(folder), BUCKET]) == 0

    assert list_keys(s3) == [
        "pulid/extra_model_paths.yaml",
        "pulid/models/checkpoints/flux.safetensors",
        "pulid/models/loras/faces/smile.safetensors",
    ]
    text = s3.get_object(Bucket=BUCKET, Key="pulid/extra_model_paths.yaml")["Body"].read()
    assert yaml.safe_load(text) == {
        "ml-service": {
            "base_path": INSTANCE_FOLDER,
            "checkpoints": "checkpoints",
            "loras": "loras",
        }
    }


def test_only_what_changed_is_uploaded_again(
    s3: "S3Client", folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["pulid", str(folder), BUCKET])
    (folder / "checkpoints" / "flux.safetensors").write_bytes(b"other weights")
    capsys.readouterr()

    assert main(["pulid", str(folder), BUCKET]) == 0
    printed = capsys.readouterr().out
    assert "upload  checkpoints/flux.safetensors" in printed
    assert "1 to upload, 1 there already" in printed


@pytest.mark.parametrize("deletes", [False, True])
def test_what_the_folder_lacks_stays_unless_it_is_to_go(
    s3: "S3Client", folder: Path, deletes: bool
) -> None:
    key = "pulid/models/vae/old.safetensors"
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"old")

    assert main(["pulid", str(folder), BUCKET, *["--delete"] * deletes]) == 0
    assert (key in list_keys(s3)) is not deletes
    text = s3.get_object(Bucket=BUCKET, Key="pulid/extra_model_paths.yaml")["Body"].read()
    assert ("vae" in yaml.safe_load(text)["ml-service"]) is not deletes


def test_a_dry_run_leaves_the_bucket_as_it_is(s3: "S3Client", folder: Path) -> None:
    assert main(["pulid", str(folder), BUCKET, "--delete", "--dry-run"]) == 0
    assert list_keys(s3) == []


def test_an_empty_folder_is_a_mistake(s3: "S3Client", tmp_path: Path) -> None:
    """With --delete it would take every model away."""
    assert main(["pulid", str(tmp_path), BUCKET, "--delete"]) == 1


def test_a_model_that_a_workflow_names_is_missed(root: Path) -> None:
    shipped = load_catalog(root / "workflows").workflow("flux-prompt")
    model = Model(folder="loras", file="smile.safetensors")
    workflow = shipped.model_copy(update={"models": (model,)})

    assert list(find_missing(["loras/smile.safetensors"], [workflow])) == []
    (sentence,) = find_missing(["vae/smile.safetensors"], [workflow])
    assert "loras/smile.safetensors" in sentence


def test_the_instances_look_where_they_put_them(root: Path) -> None:
    script = (root / "fleets" / "image" / "scripts" / "sync_models.sh").read_text()
    assert f"MODEL_ROOT:-{INSTANCE_FOLDER.removesuffix('/models')}}}" in script
