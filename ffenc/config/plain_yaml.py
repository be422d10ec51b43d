"""YAML with limits: a few aliases can expand to more values than fit in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffenc.errors import ConfigError, SourceError
from ffenc.paths import read_text

if TYPE_CHECKING:
    import yaml

KeyPath = tuple[str, ...]

MOST_BYTES = 1 << 20
"""Largest YAML file that is read, in bytes: a preset has some kilobytes."""

_MOST_VALUES = 20_000  # a preset with a hundred cameras has a few thousand
# Texts that YAML reads as themselves, as most values of a command line; the library is slow to load.
_WORD, _NUMBER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*"), re.compile(r"0|[1-9][0-9]{0,8}")
_NO_WORDS = frozenset(("yes", "no", "true", "false", "on", "off", "null"))


def value_of(text: str) -> Any:
    """Return the plain value of a YAML text.

    Raises:
        ConfigError: as for :func:`compose`.
        ValueError: not YAML, or without a plain value.
    """
    if _WORD.fullmatch(text) and text.lower() not in _NO_WORDS:
        return text
    if _NUMBER.fullmatch(text):
        return int(text)
    import yaml  # noqa: PLC0415 - slow to load

    try:
        node = compose(text)
        if node is None:
            raise ValueError("no value")
        return construct(node)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None


@cache
def _loader() -> type[yaml.SafeLoader]:
    """Return the loader: safe YAML in which numbers are decimal, as people mean them.

    YAML 1.1 reads 010 as 8, 1:30 as 90 and 1_000 as 1000, and 1e-2 as a text. Here the first three are texts,
    and the last is a number.
    """
    import yaml  # noqa: PLC0415 - slow to load

    class Loader(yaml.SafeLoader):
        pass

    kinds = {
        "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F_]+|0b[01_]+)",
        "tag:yaml.org,2002:float": (
            r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
            r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
        ),
    }
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in kinds]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in kinds.items():
        Loader.add_implicit_resolver(tag, re.compile(f"(?:{pattern})$"), list("-+.0123456789"))
    return Loader


def compose(text: str) -> yaml.Node | None:
    """Return the document of a YAML text after checking the size of its aliases.

    Args:
        text: at most :data:`MOST_BYTES` long.

    Raises:
        ConfigError: an alias that contains itself, or too many values with all aliases expanded.
        yaml.YAMLError: not YAML.
        RecursionError: nested too deeply.
    """
    loader = _loader()(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    if node is not None:
        values = _count(node, {}, set())
        if values > _MOST_VALUES:
            shown = f"{values:,}" if values < 10**15 else "countless"
            raise ConfigError(
                f"expands to {shown} values through its aliases",
                expected=f"at most {_MOST_VALUES:,}",
            )
    return node


def read_keys(
    path: Path, what: str, named: Callable[[KeyPath, str], str] = lambda _, name: name
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Read a YAML file that is a mapping, with safe YAML only.

    Args:
        path: the file.
        what: what the file is, with an article, for errors: ``a preset``.
        named: returns the name of a key, from the key path above it and its text.

    Returns:
        The values, and key path -> file and line of the key.

    Raises:
        ConfigError: not readable, not a mapping, or with a duplicate key; the text names file, line and key.
    """
    import yaml  # noqa: PLC0415 - slow to load

    places: dict[KeyPath, str] = {}
    try:
        node = _composed(path)
        if node is None:
            return {}, places
        if not isinstance(node, yaml.MappingNode):
            found = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise ConfigError(f"{path}:1: {what} is a mapping of keys, found {found}")
        return _mapping(path, node, (), places, named), places
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or a YAML alias that contains itself") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None


def _composed(path: Path) -> yaml.Node | None:
    """Return the root node of a file.

    Raises:
        ConfigError: not readable, or with too many values with all aliases expanded.
    """
    try:
        return compose(read_text(path, MOST_BYTES))
    except SourceError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _mapping(
    path: Path,
    node: yaml.MappingNode,
    above: KeyPath,
    places: dict[KeyPath, str],
    named: Callable[[KeyPath, str], str],
) -> dict[str, Any]:
    """Construct a mapping with safe YAML only, record the line of each key, and refuse duplicate keys."""
    import yaml  # noqa: PLC0415 - slow to load

    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        name = named(above, str(key_node.value))
        key = (*above, name)
        place = f"{path}:{key_node.start_mark.line + 1}"
        if name in values:
            raise ConfigError(f"{place}: {'.'.join(key)}: is defined twice, first at {places[key]}")
        places[key] = place
        if isinstance(value_node, yaml.MappingNode):
            if value_node.tag != "tag:yaml.org,2002:map":
                raise ConfigError(f"{place}: {'.'.join(key)}: tag {value_node.tag!r} is not accepted")
            values[name] = _mapping(path, value_node, key, places, named)
        else:
            loader = _loader()("")
            try:
                values[name] = loader.construct_object(value_node, deep=True)
            except yaml.constructor.ConstructorError as error:
                raise ConfigError(f"{place}: {'.'.join(key)}: {error.problem}") from None
            except (
                ValueError,
                LookupError,
                AttributeError,
                TypeError,
            ) as error:  # !!int of a word, a bad date
                raise ConfigError(f"{place}: {'.'.join(key)}: {error}") from None
            finally:
                loader.dispose()
    return values


def construct(node: yaml.Node) -> object:
    """Return the plain value of a node of :func:`compose`.

    Raises:
        yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError: the node has none.
    """
    loader = _loader()("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Count the values of a node with aliases expanded; each node is visited once."""
    import yaml  # noqa: PLC0415 - slow to load

    if id(node) in above:
        raise ConfigError("nested too deeply, or a YAML alias that contains itself")
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
