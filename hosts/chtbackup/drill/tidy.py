"""Remove what a drill made, also one that was killed."""

from __future__ import annotations

import subprocess
from typing import Any

from chtbackup.base.errors import Refused, reason_of
from chtbackup.base.text import complain
from chtbackup.docker import Docker
from chtbackup.drill.reports import Reports
from chtbackup.drill.scratch import Scratch, own_containers


def tidy(settings: dict[str, Any]) -> list[str]:
    """Remove a drill's containers and files. Returns what couldn't be done, one line each."""
    problems = []
    docker = Docker()
    scratch = Scratch(settings)
    try:
        if docker.stopped:
            raise OSError(f"Docker doesn't answer: {docker.stopped}")
        containers = own_containers(docker, settings["deployment"])
        if containers:
            docker.run("rm", "--force", "--volumes", *containers)
    except (OSError, subprocess.SubprocessError) as error:
        # Without its files here, no drill has got as far as a container.
        if scratch.there():
            problems.append(f"containers of the drill may be left: {reason_of(error)}")
    try:
        scratch.remove()
    except (OSError, Refused) as error:
        problems.append(f"files of the drill are left in {scratch.path}: {error}")
    return problems


def settle(settings: dict[str, Any], reports: Reports) -> bool:
    """Remove what a drill left that was killed. Returns whether there was one; it is reported then."""
    left = reports.running()
    problems = tidy(settings)
    for text in problems:
        complain(f"problem: {text}")
    if left is None:
        return bool(problems)
    if (reports.latest() or {}).get("began") == left["began"]:  # killed between its report and its end
        reports.unmark()
        return bool(problems)
    text = f"interrupted at the stage “{left['stage']}”: the drill was killed, or the machine restarted"
    left.update(outcome="interrupted", problems=[*left["problems"], text, *problems])
    reports.write(left)
    reports.unmark()
    complain(f"the drill begun at {left['began']} was {text}; what it left is removed")
    return True
