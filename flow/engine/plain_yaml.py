"""YAML as a person means it: plain values, every key once, nothing that turns into something else.

Numbers are those of YAML 1.2 (`1e-3` is one, `1:30` and `017` are text), so that what is read is what is seen. Refused
are keys that are there twice, anchors and aliases, tags that make other objects, dates, and what would take a reader's
time or memory: deep nesting, numbers of more than 64 bits.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

#: Longest text, deepest nesting, and what lies between the most negative and the largest whole number.
MAX_CHARACTERS, MAX_DEPTH = 1 << 18, 20
_LOW, _HIGH = -(1 << 63), (1 << 64) - 1
_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}
    yaml_constructors: dict = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the tree; what is refused by its place or its kind is refused here, before anything is made."""
        event = self.peek_event()
        if getattr(event, "anchor", None):  # of an alias too
            raise _problem("an anchor or alias (& or *); write the value out", event)
        if getattr(event, "tag", None):
            raise _problem(
                f"the tag {event.tag.replace(_PREFIX, '!!'):.60}; plain values, lists and keys are read", event
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _problem(f"a nesting of more than {MAX_DEPTH}", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise _problem(f"a key that is no name: {key!r:.60}", key_node)
            if str(key) in found:
                raise _problem(f"the key {key!r:.60} twice; give it once", key_node)
            found[str(key)] = self.construct_object(value_node, deep=True)
        return found

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(inner, deep=True) for inner in node.value]

    def whole(self, node: yaml.ScalarNode) -> int:
        text = node.value.replace("_", "")
        if len(text) <= 24 and _LOW <= (value := int(text, 16 if text.lstrip("+-")[:2] == "0x" else 10)) <= _HIGH:
            return value
        raise _problem(f"a number of more than 64 bits ({text[:24]}...)", node)

    def real(self, node: yaml.ScalarNode) -> float:
        text = node.value.replace("_", "").lower()
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if value in (float("inf"), -float("inf")) and "inf" not in text:
            raise _problem(f"a number that is too large ({text[:24]})", node)
        return value


def _problem(what: str, place: Any) -> yaml.YAMLError:
    mark = place.start_mark
    return yaml.YAMLError(f"it has {what}; line {mark.line + 1}, column {mark.column + 1}")


_INT, _FLOAT = f"{_PREFIX}int", f"{_PREFIX}float"
_TRUTH = r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"
_REAL = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*|(?=[eE]))|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    (f"{_PREFIX}bool", _TRUTH, "yYnNtTfFoO"),
    (f"{_PREFIX}null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_INT, r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]*[0-9a-fA-F])", "-+0123456789"),
    (_FLOAT, rf"{_REAL}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_PREFIX}null", yaml.SafeLoader.construct_yaml_null)
_Loader.add_constructor(f"{_PREFIX}bool", yaml.SafeLoader.construct_yaml_bool)
_Loader.add_constructor(f"{_PREFIX}str", yaml.SafeLoader.construct_yaml_str)
_Loader.add_constructor(_INT, _Loader.whole)
_Loader.add_constructor(_FLOAT, _Loader.real)
_Loader.add_constructor(f"{_PREFIX}map", _Loader.mapping)
_Loader.add_constructor(f"{_PREFIX}seq", _Loader.sequence)


def load(text: str) -> Any:
    """The values of a YAML text: dictionaries, lists, text, numbers, booleans, None.

    Raises yaml.YAMLError, which says where, for what is no YAML or is refused (see above).
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters, and at most {MAX_CHARACTERS} are read")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (the loader is a safe one, with less)
    except (ValueError, RecursionError, IndexError, AttributeError) as error:
        raise yaml.YAMLError(f"it cannot be read ({error})") from error
