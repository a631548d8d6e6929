"""A type checker for jaxtyping's import hook that checks the first calls of each function in each test.

Checking every call took a third of the time of all tests: a model calls the same function with the same shapes in each
layer and each step.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import beartype

CALLS = 3
"""The number of calls of a function that a test checks."""

_calls: Counter[tuple[str, str]] = Counter()
_resting: set[Callable[..., Any]] = set()


def first_calls(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Check with beartype. jaxtyping passes a stub with the function's name for the parameters, another for the result.

    After CALLS calls the function gets typing's mark `__no_type_check__`, and jaxtyping does not check it.
    """
    check = beartype(stub)
    name = (stub.__module__, stub.__qualname__)

    @functools.wraps(stub)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _calls[name] += 1
        if _calls[name] == 2 * CALLS:
            _rest(*name)
        return check(*args, **kwargs)

    return checked


def begin_test() -> None:
    """Check all functions again."""
    for function in _resting:
        del function.__no_type_check__  # type: ignore[attr-defined]
    _resting.clear()
    _calls.clear()


def _rest(module: str, qualname: str) -> None:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    found = getattr(found, "__func__", getattr(found, "fget", found))
    if callable(found):
        function = inspect.unwrap(found)
        function.__no_type_check__ = True  # type: ignore[attr-defined]
        _resting.add(function)
