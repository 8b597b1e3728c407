"""LocalStack with what it lacks: moto's other services, access control, checked web identities and a trail.

Runs in LocalStack's own virtual environment (`python main.py`), not in the harness's: it imports LocalStack and nothing
of testbed. Its settings are LocalStack's variables, and `TESTBED_AWS_SETTINGS`: a JSON object with `accounts` (ids by
name) and `issuers` (a folder with the public keys of token issuers, see `web_identity`).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from typing_extensions import deprecated

sys.path.insert(0, str(Path(__file__).parent))
if not hasattr(warnings, "deprecated"):  # LocalStack 4.14's S3 imports it from there, which needs Python 3.13
    warnings.deprecated = deprecated  # type: ignore[attr-defined]

from access import AccessControl
from localstack.aws import handlers
from localstack.http import route
from localstack.runtime.main import main
from localstack.services.edge import ROUTER
from more_services import add_services, fixed_account_ids
from trail import Trail
from web_identity import WebIdentities


def install() -> None:
    """Put our handlers into LocalStack's chain, before it starts to listen."""
    settings = json.loads(os.environ["TESTBED_AWS_SETTINGS"])
    trail = Trail(frozenset(settings["accounts"].values()))
    fixed_account_ids(settings["accounts"])
    add_services(trail)
    access = AccessControl(WebIdentities(Path(settings["issuers"])))
    handlers.serve_custom_service_request_handlers.append(trail.begin)
    handlers.serve_custom_service_request_handlers.append(access)
    handlers.run_custom_response_handlers.append(trail.end)

    @route("/_testbed/trail", methods=["GET"])
    def _events(request: Any) -> Any:
        return trail.serve(request)

    ROUTER.add(_events)


if __name__ == "__main__":
    install()
    main()
