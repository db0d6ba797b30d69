"""The moto process: ``python -m local.aws.serve_moto`` with its options as one JSON argument.

Prints one JSON line when it answers requests: its port and the resource types that its
CloudFormation can create. It ends with the process that started it.
"""

import json
import logging
import sys

from local.aws.die_with_parent import die_with_parent
from local.aws.virtual_clock import VirtualClock


def main() -> None:
    """Start moto as the options say and serve until killed."""
    options = json.loads(sys.argv[1])
    die_with_parent(options["parent_id"])
    # Imported late: moto takes a second, in which the parent may already be gone.
    from moto.cloudformation.parsing import get_model_map
    from moto.core.config import default_user_config
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from moto.stepfunctions.parser import models as _interpreter  # noqa: F401  (before the patches)

    from local.aws import patch_moto
    from local.aws.count_calls import CallCounter
    from local.aws.pooled_server import PooledServer

    patch_moto.reuse_task_clients(options["gateway"])
    patch_moto.reuse_parsed_definitions()
    patch_moto.read_json_templates_as_json()
    clock = VirtualClock(**options["clock"])
    patch_moto.scale_waits(clock)
    patch_moto.launch_in_virtual_time(clock)
    patch_moto.find_services_once()
    patch_moto.hasten_queues()
    patch_moto.keep_queues_whole()
    patch_moto.keep_conditions_true()
    patch_moto.tell_age_of_messages()
    patch_moto.let_launches_fail()
    patch_moto.keep_stops()
    patch_moto.report_ended_executions(options["report_url"])
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # One line per request costs 5 % of it.

    application = CallCounter(DomainDispatcherApplication(create_backend_app))
    server = PooledServer("127.0.0.1", 0, application, MotoRequestHandler)
    ready = {"port": server.port, "resource_types": sorted(get_model_map())}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
