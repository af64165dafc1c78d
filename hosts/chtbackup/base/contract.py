"""Check what the operator's computer has written for a program here, by the schema that was generated from the same
declaration (`contract/` in the project). As much of JSON Schema as those use."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any


class Wrong(Exception):
    """What isn't as it was declared: one line with the file, the setting, and what would be right."""


def schema(contract: str) -> dict[str, Any]:
    """The schema of a contract by its name. It is read with the package, from a directory or a zip file."""
    return json.loads(resources.files("chtbackup").joinpath("schemas", f"{contract}.json").read_text("utf-8"))


def read(contract: str, path: str) -> dict[str, Any]:
    """The settings in a file, with their defaults. Raises Wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        raise Wrong(f"{path}: can't be read as settings: {error}") from error
    declared = schema(contract)
    problem = mistake(settings, declared)
    if problem is not None:
        raise Wrong(f"{path}: {problem}")
    defaults = {name: of["default"] for name, of in declared["properties"].items() if "default" in of}
    return {**defaults, **settings}


def mistake(value: Any, declared: dict[str, Any], name: str = "") -> str | None:
    """The first thing that is not as declared, such as `keep must be a whole number from 1`; None where all is."""
    what = f"{name} must be {declared.get('description', 'an object')}".strip()
    if not _is(value, declared.get("type")):
        return what
    if "anyOf" in declared and all(mistake(value, one, name) for one in declared["anyOf"]):
        return what
    if "enum" in declared and value not in declared["enum"]:
        return what
    if "const" in declared and value != declared["const"]:
        return what
    # JavaScript's `$` is the end of the text, Python's also stands before a last line break.
    if "pattern" in declared and not re.fullmatch(declared["pattern"].removeprefix("^").removesuffix("$"), str(value)):
        return what
    if "minimum" in declared and value < declared["minimum"]:
        return what
    if "exclusiveMinimum" in declared and value <= declared["exclusiveMinimum"]:
        return what
    if isinstance(value, list) and any(mistake(one, declared["items"], name) for one in value):
        return what
    if isinstance(value, dict) and "properties" in declared:
        return _mistake_inside(value, declared, f"{name}." if name else "")
    return None


def _mistake_inside(value: dict[str, Any], declared: dict[str, Any], prefix: str) -> str | None:
    properties = declared["properties"]
    for name, of in properties.items():
        if name in value:
            problem = mistake(value[name], of, f"{prefix}{name}")
        else:
            missing = name in declared.get("required", []) and "default" not in of
            problem = f"{prefix}{name} must be {of.get('description', 'there')}" if missing else None
        if problem is not None:
            return problem
    unknown = sorted(value.keys() - properties.keys())
    return f"there is no setting {prefix}{unknown[0]}" if unknown else None


def _is(value: Any, kind: str | list[str] | None) -> bool:
    if isinstance(kind, list):
        return any(_is(value, one) for one in kind)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {
        "array": isinstance(value, list),
        "boolean": isinstance(value, bool),
        "integer": number and (isinstance(value, int) or value.is_integer()),
        "null": value is None,
        "number": number,
        "object": isinstance(value, dict),
        "string": isinstance(value, str),
    }
    return kind is None or kinds[kind]
