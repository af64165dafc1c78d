"""What a drill gives Compose of an archive's compose files: nothing that wasn't looked at, written anew.

Whoever made the archive may mean harm, and Compose, as root, reads the files that a compose file names. Two programs
may also see different things in the same text, so what Compose gets is what was seen here.
"""

from __future__ import annotations

from collections.abc import Callable

import yaml

FILES = frozenset({"env_file", "file", "label_file"})
"""Of the following, keys whose files Compose takes as they are: the archive's own may be read."""
ELSEWHERE = frozenset({"env_file", "extends", "file", "include", "label_file"})
"""Keys of a compose file by which Compose reads other files, whosever they are (`file`: of secrets and configs)."""
OWN_TAGS = frozenset({"!override", "!reset"})
"""Compose's own, by which one file changes another."""
RESOLVER = yaml.resolver.Resolver()
MOST_NODES = 100_000
"""With its aliases written out. A CHT's file has some hundred."""


def anew(text: str, archived: Callable[[str], str | None] = lambda name: None) -> tuple[str, list[str]]:
    """A compose file written anew, without anchors and aliases, and its keys at any depth that are in ELSEWHERE. Plain
    scalars stay plain: which of them are numbers or nothing is Compose's to say. Raises ValueError saying what is
    wrong, with the line where it isn't YAML.

    `archived` tells where a file that is named is in the copy, if it is there: then that is named instead."""
    copied: list[yaml.Node] = []
    found: set[str] = set()

    def count(node: yaml.Node) -> None:
        if len(copied) == MOST_NODES:
            raise ValueError("it is larger than any compose file, with its aliases written out")
        copied.append(node)

    def copy(node: yaml.Node) -> yaml.Node:
        count(node)
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                # A key with a tag would be another one to Compose than it is here.
                if not isinstance(key, yaml.ScalarNode) or key.tag in OWN_TAGS:
                    raise ValueError(f"it has a key that isn't plain text{_line(key)}")
            pairs = []
            for key, of in node.value:
                here = in_copy(of) if key.value in FILES else None
                found.update(ELSEWHERE & {key.value} if here is None else ())
                pairs.append((key, here or of))
            value = [(copy(key), copy(of)) for key, of in pairs]
            return yaml.MappingNode(_tag(node, RESOLVER.DEFAULT_MAPPING_TAG), value)
        if isinstance(node, yaml.SequenceNode):
            value = [copy(of) for of in node.value]
            return yaml.SequenceNode(_tag(node, RESOLVER.DEFAULT_SEQUENCE_TAG), value)
        plain = node.style is None
        implied = RESOLVER.resolve(yaml.ScalarNode, node.value, (plain, not plain))
        return yaml.ScalarNode(_tag(node, implied), node.value, style=None if plain else '"')

    def in_copy(node: yaml.Node) -> yaml.Node | None:
        """What names files, with their places in the copy; None when one isn't there."""
        count(node)
        if isinstance(node, yaml.ScalarNode):
            place = archived(node.value)
            return None if place is None else yaml.ScalarNode(RESOLVER.DEFAULT_SCALAR_TAG, place.replace("$", "$$"))
        if isinstance(node, yaml.SequenceNode):
            each = [in_copy(of) for of in node.value]
            return None if None in each else yaml.SequenceNode(RESOLVER.DEFAULT_SEQUENCE_TAG, each)
        if isinstance(node, yaml.MappingNode) and {of.value for of, _ in node.value} <= {"path", "required", "format"}:
            pairs = [(key, in_copy(of) if key.value == "path" else of) for key, of in node.value]
            return None if any(of is None for _, of in pairs) else yaml.MappingNode(node.tag, pairs)
        return None

    try:
        documents = [copy(node) for node in yaml.compose_all(text, yaml.SafeLoader) if node is not None]
        return yaml.serialize_all(documents, Dumper=yaml.SafeDumper, explicit_start=True, width=1 << 30), sorted(found)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"it isn't YAML{_line(error)}") from None
    except (yaml.YAMLError, RecursionError):
        raise ValueError("it isn't YAML") from None


def _tag(node: yaml.Node, implied: str) -> str:
    if node.tag != implied and node.tag not in OWN_TAGS:
        raise ValueError(f"it has a tag that a drill doesn't know{_line(node)}")
    return node.tag


def _line(of: yaml.Node | yaml.MarkedYAMLError) -> str:
    mark = of.start_mark if isinstance(of, yaml.Node) else of.problem_mark
    return f" (line {mark.line + 1})" if mark else ""
