"""Which files a deployment's compose files name, and how its `.env` reads: Docker Compose is asked, which
needs no Docker engine for it. Where it isn't there, or refuses the files, they are read here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chtbackup.compose import environment as compose_env
from chtbackup.couchdb.containers import DATA_IN_CONTAINER

COMMANDS = (["docker", "compose"], ["docker-compose"])
TIMEOUT = 120  # seconds
LARGEST_FILE = 10 * 1024 * 1024  # bytes of a compose file or `.env`; theirs have some thousand
_UNSET = "\x01"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*[=:]", re.M)


def read_text(path: str) -> str:
    """The text of a regular file or of a link to one. Raises OSError for all else, and never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
        of = os.fstat(descriptor)
        if not stat.S_ISREG(of.st_mode) or of.st_size > LARGEST_FILE:
            raise OSError(0, "it is no regular file" if of.st_size <= LARGEST_FILE else "it is too large", path)
        return file.read()


def _ask(arguments: list[str], text: str | None = None) -> Any:
    """What Compose prints, read as YAML; None where it isn't there or refuses. Its own words aren't shown:
    they may hold passwords. Nothing of the environment reaches it, as it would win over `.env`."""
    import yaml  # the CHT machine has it; the machines that restore don't need it

    environment = {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": "/root", "LANG": "C.UTF-8",
    }  # fmt: skip
    for command in COMMANDS:
        try:
            done = subprocess.run(
                [*command, "--project-name", "cht-backup", *arguments],
                input=text or "", capture_output=True, encoding="utf-8", errors="surrogateescape",
                env=environment, cwd="/", timeout=TIMEOUT,
            )  # fmt: skip
            if done.returncode == 0:
                return yaml.safe_load(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError, yaml.YAMLError):
            continue
    return None


def read_environment(path: str) -> tuple[compose_env.Reading, str | None]:
    """A `.env` as Compose reads it, and why that isn't certain (None where it is). Raises OSError."""
    text = read_text(path)
    refused: str | None = None
    try:
        reading = compose_env.parse(text)
    except compose_env.NotReadable as error:
        reading, refused = compose_env.Reading(), str(error)
    names = sorted({*_VARIABLE.findall(text), *filter(_NAME.fullmatch, reading.values)})
    service = {"image": "none", "environment": {name: f"${{{name}-{_UNSET}}}" for name in names}}
    asked = _ask(
        ["--env-file", path, "--file", "-", "config"],
        json.dumps({"version": "3.9", "services": {"x": service}}),
    )
    try:
        answer = asked["services"]["x"]["environment"]
    except (TypeError, KeyError):
        if refused is None and names and version() is not None:
            refused = "Compose doesn't say why"
        return reading, refused and f"Compose can't read it: {refused}"
    said = {name: "" if value is None else str(value).replace("$$", "$") for name, value in answer.items()}
    values = {name: value for name, value in said.items() if value != _UNSET}
    # What depends on the environment of whoever starts the CHT isn't known to this Compose either.
    return compose_env.Reading(values, reading.unsure), None


def version() -> str | None:
    """The version of the Compose that is there; None where there is none."""
    for command in COMMANDS:
        try:
            done = subprocess.run(
                [*command, "version", "--short"], capture_output=True, text=True, check=True,
                timeout=TIMEOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            continue
    return None


# ---- files that compose files name ----------------------------------------------------------------------


@dataclass
class Named:
    """What compose files name beside themselves."""

    files: dict[str, str] = field(default_factory=dict)
    """By absolute path, what names it, in words."""
    data: list[str] = field(default_factory=list)
    """What Compose mounts as CouchDB's data."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def named_files(files: Iterable[str], env_file: str | None, env: compose_env.Reading) -> Named:
    """The files and directories that compose files name. They are those of one project for each folder."""
    found = Named()
    by_folder: dict[str, list[str]] = {}
    asked: set[str] = set()  # folders of which Compose has told
    for path in files:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    for folder, paths in by_folder.items():
        words = [word for path in paths for word in ("--file", path)]
        config = _ask([*(["--env-file", env_file] if env_file else []), *words, "config"])
        if isinstance(config, dict):
            asked.add(folder)
            found.data += [path for path in _data(config) if path.startswith("/")]
            for name, why in _of_config(config):
                if name.startswith("/"):
                    found.files.setdefault(os.path.normpath(name), f"{why} ({folder})")
    seen: set[str] = set()
    left = [path for paths in by_folder.values() for path in paths]
    while left:
        path = left.pop(0)
        if os.path.realpath(path) in seen:
            continue
        seen.add(os.path.realpath(path))
        try:
            left += _read(path, env, found, os.path.dirname(path) not in asked)
        except OSError as error:
            found.problems.append(f"{path} can't be read: {error.strerror}")
    return found


def _read(path: str, env: compose_env.Reading, found: Named, with_data: bool) -> list[str]:
    """Take note of what a compose file names; returns the further compose files among it."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Takes Compose's own tags (`!reset`, `!override`) for what they stand before."""

    def plain(loader: Any, _suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", plain)
    try:
        documents = [of for of in yaml.load_all(read_text(path), Loader) if isinstance(of, dict)]
    except (yaml.YAMLError, ValueError, RecursionError):
        found.problems.append(f"{path} can't be read as YAML, so the files that it names may be missing")
        return []
    further = []
    for document in documents:
        for source in _data(document) if with_data else []:
            unsure: list[str] = []
            with contextlib.suppress(compose_env.NotReadable):
                source = compose_env.expand(source, env, unsure)
                if not unsure and source.startswith(("/", ".")):
                    found.data.append(os.path.normpath(os.path.join(os.path.dirname(path), source)))
        for name, why in [*_of_config(document), *_of_text(document)]:
            missing: list[str] = []
            try:
                name = compose_env.expand(name, env, missing)
            except compose_env.NotReadable:
                missing.append(name)
            if why.startswith("a mount") and not name.startswith(("/", ".", "~")):
                continue  # a volume
            # `~` is the home of whoever starts the CHT, which isn't known.
            absolute = os.path.normpath(os.path.join(os.path.dirname(path), name))
            if "://" in name or "\0" in name or "$" in name:
                continue
            if missing and not os.path.lexists(absolute):
                found.notes.append(
                    f"{path}: {why} depends on {missing[0]}, which .env doesn't set, so which file that is isn't known"
                )
                continue
            found.files.setdefault(absolute, f"{why} ({path})")
            if why.startswith(("include", "extends")):
                further.append(absolute)
    return further


def _mappings(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, of in (value if isinstance(value, dict) else {}).items():
        if isinstance(of, dict):
            yield str(name), of


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _of_config(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is mounted, and files of secrets and configs: in a compose file, and in what Compose makes of
    it."""
    for service, of in _mappings(config.get("services")):
        for mount in _each(of.get("volumes")):
            if isinstance(mount, dict) and mount.get("type") == "bind" and isinstance(mount.get("source"), str):
                yield mount["source"], f"a mount of {service}"
            elif isinstance(mount, str):
                source = _source(mount)
                if source.startswith(("/", ".", "~", "$")):
                    yield source, f"a mount of {service}"
    for kind in ("secrets", "configs"):
        for name, of in _mappings(config.get(kind)):
            if isinstance(of.get("file"), str):
                yield of["file"], f"{kind.removesuffix('s')} {name}"
    for name, of in _mappings(config.get("volumes")):
        options = of.get("driver_opts")
        device = options.get("device") if isinstance(options, dict) else None
        if isinstance(device, str) and "bind" in str(options.get("o", "")):
            yield device, f"the volume {name}"


def _data(config: dict[str, Any]) -> Iterator[str]:
    """The directories that are mounted as CouchDB's data, in what Compose makes of compose files."""
    for service, of in _mappings(config.get("services")):
        for mount in _each(of.get("volumes")) if service.startswith("couchdb") else []:
            if isinstance(mount, dict) and mount.get("type") == "bind":
                if mount.get("target") == DATA_IN_CONTAINER:
                    yield str(mount.get("source"))
            elif isinstance(mount, str):
                source = _source(mount)
                if mount[len(source) + 1 :].split(":")[0] == DATA_IN_CONTAINER:
                    yield source


def _source(mount: str) -> str:
    """What is before the first colon that isn't in braces (`${A:-./b}:/c`)."""
    deep = 0
    for at, letter in enumerate(mount):
        deep += {"{": 1, "}": -1}.get(letter, 0)
        if letter == ":" and not deep:
            return mount[:at]
    return ""  # a volume without a name


def _of_text(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What only a compose file's own text names: Compose has it read and gone."""
    for of in _each(document.get("include")):
        parts = of if isinstance(of, dict) else {"path": of}
        for key, why in (("path", "include"), ("env_file", "env_file of include")):
            for name in _each(parts.get(key)):
                if isinstance(name, str):
                    yield name, why if key == "path" else why.replace("include", "an include")
    for service, of in _mappings(document.get("services")):
        for key in ("env_file", "label_file"):
            for name in _each(of.get(key)):
                name = name.get("path") if isinstance(name, dict) else name
                if isinstance(name, str):
                    yield name, f"{key} of {service}"
        extends, build = of.get("extends"), of.get("build")
        if isinstance(extends, dict) and isinstance(extends.get("file"), str):
            yield extends["file"], f"extends of {service}"
        context = build.get("context") if isinstance(build, dict) else build
        if isinstance(context, str):
            yield context, f"build of {service}"
