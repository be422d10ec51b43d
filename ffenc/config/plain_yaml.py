"""YAML with limits: a few aliases can stand for more values than any memory holds."""

from __future__ import annotations

import yaml

from ffenc.errors import ConfigError

MOST_BYTES = 1 << 20
"""Largest YAML file that is read, in bytes: a preset has some kilobytes."""

_MOST_VALUES = 20_000  # a preset with a hundred cameras has some thousands


def compose(text: str) -> yaml.Node | None:
    """Return the document of a YAML text, whose aliases have been counted.

    Args:
        text: of at most :data:`MOST_BYTES`.

    Raises:
        ConfigError: an alias that holds itself, or too many values once each alias is replaced.
        yaml.YAMLError: it is no YAML.
        RecursionError: it is nested too deeply.
    """
    loader = yaml.SafeLoader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    if node is not None:
        values = _count(node, {}, set())
        if values > _MOST_VALUES:
            shown = f"{values:,}" if values < 10**15 else "countless"
            raise ConfigError(
                f"stands for {shown} values, once its aliases are replaced; expected at most {_MOST_VALUES:,}"
            )
    return node


def construct(node: yaml.Node) -> object:
    """Return the plain value of a node of :func:`compose`.

    Raises:
        yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError: it has none.
    """
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for; each is looked at once, however many aliases lead to it."""
    if id(node) in above:
        raise ConfigError("nested too deeply, or a YAML alias that holds itself")
    if id(node) not in known:
        above.add(id(node))
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_count(part, known, above) for part in below)
        above.remove(id(node))
    return known[id(node)]
