"""What `testbed down` must know before it knows anything else. Imports little, so that it is quick."""

from __future__ import annotations

import json
from pathlib import Path

HAND_OVER = "platform.json"


def runs_on_existing(folder: Path) -> bool:
    """Whether the platform of a folder has put add-ons on a cluster that is not its own."""
    try:
        return bool(json.loads((folder / HAND_OVER).read_text())["spec"]["backend"] == "existing")
    except (OSError, ValueError, KeyError, TypeError):
        return False
