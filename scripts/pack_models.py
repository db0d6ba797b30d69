"""Puts a fleet's models into S3, from where its instances fetch them: see docs/image.md.

python -m scripts.pack_models FLEET FOLDER BUCKET [--delete] [--dry-run]
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import boto3
import yaml

from ml_service.adapters.workflow_files import load_catalog
from ml_service.domain.manifests import Workflow

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

WORKFLOWS = Path(__file__).parents[1] / "workflows"
INSTANCE_FOLDER = "/var/lib/comfyui/models"
"""Where fleets/image/scripts/sync_models.sh puts them."""
_DELETE_LIMIT = 1000


@dataclass(frozen=True)
class Packing:
    """What is to be done; a name is a path below the models' folder, as vae/flux.safetensors."""

    new: Sequence[str]
    kept: Sequence[str]
    """In S3 already, of the same size and no older."""
    surplus: Sequence[str]
    """In S3 and not in the folder."""


def list_models(folder: Path) -> dict[str, Path]:
    """The model files by name, without ComfyUI's empty placeholders and hidden files."""
    names = {
        path.relative_to(folder): path
        # A file directly in the folder would belong to no kind of model.
        for path in sorted(folder.glob("*/**/*"))
        if path.is_file() and path.stat().st_size
    }
    return {
        name.as_posix(): path
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def find_missing(names: Iterable[str], workflows: Iterable[Workflow]) -> Iterator[str]:
    """A sentence for each model that a workflow's manifest asks for and that is not there."""
    there = set(names)
    for workflow in workflows:
        for model in workflow.models:
            if f"{model.folder}/{model.file}" not in there:
                yield f"{workflow.workflow} needs {model.folder}/{model.file}"


def format_model_paths(names: Iterable[str]) -> str:
    """ComfyUI's extra_model_paths.yaml for an instance that has these models."""
    kinds = sorted({PurePosixPath(name).parts[0] for name in names})
    paths = {"base_path": INSTANCE_FOLDER, **{kind: kind for kind in kinds}}
    return yaml.safe_dump({"ml-service": paths}, sort_keys=False)


class ModelFolder:
    """A fleet's models in S3."""

    def __init__(self, s3: "S3Client", bucket: str, fleet: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._fleet = fleet
        self._prefix = f"{fleet}/models/"

    def compare(self, models: Mapping[str, Path]) -> Packing:
        """What differs between a folder and S3, by size and time, as `aws s3 sync` judges it."""
        stored = {
            entry["Key"].removeprefix(self._prefix): (entry["Size"], entry["LastModified"])
            for page in self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for entry in page.get("Contents", [])
        }
        kept = [
            name
            for name, path in models.items()
            if name in stored
            and stored[name][0] == path.stat().st_size
            and stored[name][1] >= datetime.fromtimestamp(path.stat().st_mtime, UTC)
        ]
        return Packing(
            new=sorted(models.keys() - set(kept)),
            kept=kept,
            surplus=sorted(stored.keys() - models.keys()),
        )

    def upload(self, name: str, path: Path) -> None:
        """Put one model, in parts if it is large."""
        self._s3.upload_file(str(path), self._bucket, self._prefix + name)

    def write_model_paths(self, text: str) -> None:
        """Put extra_model_paths.yaml beside the models."""
        key = f"{self._fleet}/extra_model_paths.yaml"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=text.encode())

    def delete(self, names: Sequence[str]) -> None:
        """Delete models; instances drop them when their ComfyUI starts again."""
        for start in range(0, len(names), _DELETE_LIMIT):
            keys = [self._prefix + name for name in names[start : start + _DELETE_LIMIT]]
            self._s3.delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys]}
            )


def main(arguments: Sequence[str]) -> int:
    """Pack one fleet's models; 1 if there are none or some that its workflows name are missing."""
    catalog = load_catalog(WORKFLOWS)
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pack_models", description="Put a fleet's models into S3."
    )
    parser.add_argument("fleet", choices=sorted({workflow.fleet for workflow in catalog}))
    parser.add_argument("folder", type=Path, help="ComfyUI's models folder")
    parser.add_argument("bucket", help="the fleets' parameter ModelBucketName")
    parser.add_argument(
        "--delete", action="store_true", help="delete from S3 what the folder does not have"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)

    models = list_models(options.folder)
    if not models:
        print(f"There is no model below {options.folder}.", file=sys.stderr)
        return 1
    target = ModelFolder(boto3.client("s3"), options.bucket, options.fleet)
    packing = target.compare(models)
    for name in packing.new:
        print(f"upload  {name}  {models[name].stat().st_size / 1e9:.2f} GB", flush=True)
        if not options.dry_run:
            target.upload(name, models[name])
    for name in packing.surplus:
        print(f"{'delete' if options.delete else 'left  '}  {name}")
    names = models.keys() if options.delete else {*models, *packing.surplus}
    if not options.dry_run:
        # After the models: an instance that starts just now must find what it is told of.
        target.write_model_paths(format_model_paths(names))
        if options.delete:
            target.delete(packing.surplus)
    print(f"{len(packing.new)} to upload, {len(packing.kept)} there already")
    of_fleet = [workflow for workflow in catalog if workflow.fleet == options.fleet]
    missing = list(find_missing(names, of_fleet))
    for sentence in missing:
        print(sentence, file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
