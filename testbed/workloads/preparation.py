"""What has to be there before a container's process can start: its image, its environment, its command line."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import UsageError
from testbed.workloads import environment, images
from testbed.workloads.environment import ConfigError
from testbed.workloads.record import Record

CONFIG_RETRY = 1.0
IMAGE_BACK_OFF = 1.0


async def pulled(record: Record) -> images.Image | None:
    """The image; where it is not known, None once the container has to end."""
    reference = record.spec["image"]
    try:
        found = images.find(reference)
    except UsageError as error:
        why = f"{error.what}: {error.why}; {error.fix}"
        record.event("Warning", "Failed", f'Failed to pull image "{reference}": {why}')
        record.set(waiting={"reason": "ErrImagePull", "message": why})
        await record.pause(IMAGE_BACK_OFF)
        record.event("Warning", "BackOff", f'Back-off pulling image "{reference}"')
        message = f'Back-off pulling image "{reference}": {why}'
        record.set(waiting={"reason": "ImagePullBackOff", "message": message})
        await record.ending.wait()
        return None
    record.event("Normal", "Pulled", f'Container image "{reference}" already present on machine')
    record.image_id = f"{reference.partition('@')[0]} (a process: {found.tool})"
    return found


async def configured(record: Record) -> dict[str, str] | None:
    """The environment, waited for while something is missing; None once the container has to end."""
    pod = record.pod
    while not record.ending.is_set():
        try:
            own = await environment.resolve(pod.body, record.spec, pod.fetch, pod.addresses)
            environment.memory_limit(record.spec)
            environment.cpu_limit(record.spec)
        except ConfigError as error:
            if record.state.get("waiting", {}).get("message") != str(error):
                record.event("Warning", "Failed", f"Error: {error}")
                record.set(waiting={"reason": "CreateContainerConfigError", "message": str(error)})
            await record.pause(CONFIG_RETRY)
            continue
        surroundings = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(pod.folder),
            "HOSTNAME": pod.body["spec"].get("hostname") or pod.body["metadata"]["name"],
            "TESTBED_POD_ADDRESS": pod.loopback,
            "TESTBED_IMAGE_TAG": images.parse(record.spec["image"]).tag,
            "TESTBED_FLAGS": str(pod.flags),
        }
        return own | surroundings
    return None


def command_line(record: Record, image: images.Image, environ: dict[str, str]) -> list[str]:
    """What is run.

    Raises:
        ConfigError: The container's command is not the image's own program.
    """
    command = [environment.expand(part, environ) for part in record.spec.get("command") or []]
    arguments = [environment.expand(part, environ) for part in record.spec.get("args") or []]
    if command and Path(command[0]).name not in image.programs:
        raise ConfigError(
            f'exec: "{command[0]}": executable file not found: the image runs as the process {image.tool}, '
            f"which has only {', '.join(image.programs)}"
        )
    return [str(record.pod.settings.tools[image.tool]), *command[1:], *arguments]
