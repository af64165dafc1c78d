"""Secrets in a `.env`, kept out of what is shown."""

from __future__ import annotations

import re
from typing import Any

from chtbackup.compose import environment as compose_env


def scrub(text: str, secrets: list[str]) -> str:
    """A text without secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def secrets_in(env: str) -> list[str]:
    """Values of a `.env` that are secret by their names, to be left out of what Compose says of it."""
    named = re.compile("pass|secret|token|key|cred", re.IGNORECASE)
    return [value for name, value in values_in(env).items() if named.search(name) and len(value) >= 6]


def values_in(env: str) -> dict[str, str]:
    """The values of a `.env`; of one that Compose refuses, what is on its lines."""
    try:
        return compose_env.parse(env).values
    except compose_env.NotReadable:
        lines = (line.partition("=") for line in env.splitlines())
        return {name: value.strip().strip("'\"") for name, _, value in lines}


def environment_of(container: dict[str, Any]) -> list[str]:
    """The values in a container's environment, but for the shortest: none of them must be shown."""
    values = (word.partition("=")[2] for word in (container.get("Config") or {}).get("Env") or [])
    return [value for value in values if len(value) >= 6]


def became(container: dict[str, Any], line: str) -> str:
    """The state of a container by `docker inspect`, with the last line that it wrote."""
    state, restarts = container["State"], container.get("RestartCount", 0)
    exited = "" if state["Status"] == "running" and not restarts else f", last exit code {state['ExitCode']}"
    again = f", started {restarts + 1} times" if restarts else ""
    last = f', its last line: "{line.splitlines()[-1][:200]}"' if line else ""
    return f"its container {container['Name'].lstrip('/')} is {state['Status']}{exited}{again}{last}"
