"""Docstrings of config fields: the string literal below a field, read from the source only when it is asked for."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import cache

from pydantic import BaseModel


def field_doc(kind: type[BaseModel], name: str) -> str | None:
    """Return what a field means, on one line; None if nothing says so.

    The docstring is that of the class itself or of the nearest base that has one. A tag (a field `type` that has one
    value) means what the first line of its class says.
    """
    for owner in kind.__mro__:
        if issubclass(owner, BaseModel) and (found := _own_docs(owner).get(name)):
            return found
        if name == "type" and "type" in vars(owner).get("__annotations__", {}):
            return class_doc(owner)
    return None


def class_doc(kind: type) -> str | None:
    """Return the first paragraph of a class's docstring on one line; None without a docstring of its own."""
    text = vars(kind).get("__doc__")
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split()) if text else None


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, on one line and without its full stop."""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


@cache
def _own_docs(kind: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of the fields that a class declares itself; none without source, as in a console."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    found = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found
