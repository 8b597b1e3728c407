"""Which program runs the modules, and where its AWS provider comes from."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from testbed.cluster import Fidelity
from testbed.errors import UsageError
from testbed.toolchain import Toolchain

PROVIDERS = {"built": "terraform-provider-aws", "full": "terraform-provider-aws-full"}
"""Tools by where the provider comes from."""
PROVIDER_VERSION = "6.34.0"
OLDEST = (1, 10)
"""Locks in S3 without DynamoDB (`use_lockfile`) came with this version, in OpenTofu and in Terraform."""
REGISTRIES = ("registry.opentofu.org", "registry.terraform.io")
NETWORK = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What `init` may see of the user's environment where it goes to a registry."""


class Distribution(BaseModel):
    """The engine and its provider, `[tool.testbed.infra_cloud]` in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["tofu", "terraform"] = "tofu"
    """OpenTofu, built like every tool; or the Terraform on PATH, of whatever version the team has from 1.10 on."""
    provider: Literal["built", "full", "direct"] = "built"
    """Built from its source with the services that the platform uses; `full`: with all services, which takes 20 minutes
    on two cores; `direct`: `init` fetches it from the engine's registry."""

    def tools(self) -> list[str]:
        """What has to be built for it."""
        return [
            *(["tofu"] if self.engine == "tofu" else []),
            "terragrunt",
            *([PROVIDERS[self.provider]] if self.provider in PROVIDERS else []),
        ]

    def program(self, toolchain: Toolchain) -> Path:
        """The engine's binary.

        Raises:
            UsageError: Terraform is not on PATH, does not run, or is too old.
        """
        if self.engine == "tofu":
            return toolchain.ensure(["tofu"])["tofu"]
        found = shutil.which("terraform")
        fix = 'install Terraform 1.10 or newer, or use engine = "tofu", which is built here'
        if found is None:
            raise UsageError(
                "there is no terraform on PATH", why='the configuration says engine = "terraform"', fix=fix
            )
        try:
            answer = subprocess.run(
                [found, "version", "-json"],
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
                env={**os.environ, "CHECKPOINT_DISABLE": "1"},
            )
            version = str(json.loads(answer.stdout)["terraform_version"])
            number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            raise UsageError(f"{found} does not say its version", why=str(error), fix=fix) from None
        if number < OLDEST:
            raise UsageError(f"{found} is Terraform {version}", why="it cannot lock a state in S3 by itself", fix=fix)
        return Path(found)

    def configuration(self, toolchain: Toolchain, work: Path) -> Path:
        """The CLI configuration that says where the provider is; `work` is where it is written."""
        config = work / "tofu.rc"
        if self.provider == "direct":
            plugins = toolchain.cache / "plugins"
            plugins.mkdir(parents=True, exist_ok=True)
            config.write_text(f'plugin_cache_dir = "{plugins}"\nprovider_installation {{\n  direct {{}}\n}}\n')
        else:
            tool = PROVIDERS[self.provider]
            mirror = _mirror(toolchain.ensure([tool])[tool], work)
            config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
        return config

    def variables(self) -> dict[str, str]:
        """What a child sees of the user's environment besides the usual: the way to the registry, if it needs one."""
        if self.provider in PROVIDERS:
            return {}
        passed = {name: os.environ[name] for name in NETWORK if name in os.environ}
        # The emulation is never asked through a proxy.
        return passed | {"NO_PROXY": ",".join(filter(None, ["127.0.0.1", passed.get("NO_PROXY")]))}

    def remedy(self, output: str) -> str:
        """What to do about a run that failed with this output."""
        if self.provider == "built" and re.search(r"does not support (resource type|data source)", output):
            return (
                "the provider is built with the platform's services alone: "
                'set provider = "full" (or "direct") in [tool.testbed.infra_cloud]'
            )
        return "correct what the output names"

    def fidelity(self, toolchain: Toolchain) -> list[Fidelity]:
        """What is left out of the provider."""
        if self.provider != "built":
            return []
        (tool,) = toolchain.find([PROVIDERS["built"]])
        services = len(tool.parts.keep) if tool.parts is not None else 0
        return [
            Fidelity(
                part=f"AWS provider {PROVIDER_VERSION}",
                real="upstream's code",
                simulated=f'built with {services} of its services (provider = "full" builds all of them)',
            )
        ]


def _mirror(binary: Path, work: Path) -> Path:
    """A file system mirror that holds the built provider under both registries' names."""
    system = f"linux_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}[platform.machine()] }"
    for registry in REGISTRIES:
        folder = work / "mirror" / registry / "hashicorp" / "aws" / PROVIDER_VERSION / system
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / f"terraform-provider-aws_v{PROVIDER_VERSION}_x5"
        if not link.exists():
            link.symlink_to(binary)
    return work / "mirror"
