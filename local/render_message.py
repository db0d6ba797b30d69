"""Rendering a message without an instance: the prompt as it would be posted."""

import random
from pathlib import Path

from local.check_workflows import check_graph
from local.graph_folder import list_graph_folder
from ml_service.adapters.workflow_files import load_catalog, load_graph
from ml_service.domain.errors import WorkflowError
from ml_service.domain.job_requests import read_job_request
from ml_service.domain.manifests import OUTPUT_PREFIX, RANDOM_SEEDS, SEED
from ml_service.domain.rendering import render_prompt


class _AnyBucket:
    """Holds every name: nothing is read from a bucket here."""

    def __contains__(self, name: object) -> bool:
        return True


def render_message(
    body: str, directory: Path, *, graphs: Path | None = None, seed: int | None = None
) -> dict[str, dict[str, object]]:
    """Fill the graph that a message's body asks for; uploads keep the contract's names.

    Graphs are looked up in ``graphs`` first. A seed given here comes before the message's.
    Raises RefusedMessageError, WorkflowError or GraphFolderError.
    """
    catalog = load_catalog(directory)
    request = read_job_request(
        body, sqs_message_id="local", catalog=catalog, input_buckets=_AnyBucket()
    )
    workflow, inputs = request.workflow, request.inputs
    graph = catalog.graph(workflow.workflow)
    if graphs is not None:
        path = list_graph_folder(graphs, list(catalog)).graphs.get(workflow.workflow)
        if path is not None:
            if faults := check_graph(path, workflow, None).faults:
                raise WorkflowError(f"{path}: {'; '.join(faults)}")
            graph = load_graph(path)
    if seed is None:
        seed = inputs.seed if inputs.seed is not None else random.randrange(RANDOM_SEEDS)
    values = {
        **inputs.values,
        **{media.input: media.upload_name for media in inputs.media},
        OUTPUT_PREFIX: inputs.output_prefix,
        SEED: seed,
    }
    return render_prompt(workflow, graph, values)
