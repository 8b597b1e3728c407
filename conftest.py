"""For all tests of this repository. Scenarios get their fixtures from the plugin `testbed` (testbed/fixtures.py)."""

pytest_plugins = ["pytester"]
