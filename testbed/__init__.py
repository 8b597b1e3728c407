"""testbed: a GitOps-on-EKS platform on one machine, and the incidents that it must survive as pytest scenarios."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("platform-testbed")
except PackageNotFoundError:  # a source tree on sys.path without an install
    __version__ = "0+source"
