"""YAML as people write configurations: no surprising booleans, no text for 1e-3, no key twice, no anchors."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_TAG = "tag:yaml.org,2002:"


class YamlMistake(ValueError):
    """What is wrong with a text, and in which line."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which makes plain data only, with the scalars of YAML 1.2 and strict tables."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors (& and *) are not read", problem_mark=event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"tags ({event.tag}) are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is no text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


# The core schema of YAML 1.2: in YAML 1.1, `no` is false, 1e-3 a text and 1:30 the number 90.
for _kind, _form in (
    ("bool", "true|True|TRUE|false|False|FALSE"),
    ("null", "~|null|Null|NULL|"),
    ("int", "[-+]?[0-9]+"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_form})$"), None)
_Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(node.value))
_Loader.add_constructor(f"{_TAG}float", yaml.SafeLoader.construct_yaml_float)


def read_yaml(text: str) -> Any:
    """Return the plain data of a YAML text. Raises YamlMistake, with the line, for anything else."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlMistake(f"{error.problem or error.context}{line}") from None
    except yaml.YAMLError as error:
        raise YamlMistake(str(error).splitlines()[0]) from None
    except (ValueError, OverflowError) as error:
        if "chr()" in str(error):
            raise YamlMistake("a code such as \\U00110000 for no character") from None
        raise
