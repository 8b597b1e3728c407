"""Run the suites of the Gatekeeper policies with the real gator: `python -m testbed.policytests`."""

from __future__ import annotations

import subprocess
import sys

from testbed.paths import manifests
from testbed.toolchain import Toolchain


def main() -> int:
    """Verify every suite below `manifests/gatekeeper/tests`; returns gator's exit code."""
    gator = Toolchain().ensure(["gator"])["gator"]
    return subprocess.run([gator, "verify", f"{manifests('gatekeeper', 'tests')}/..."], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
