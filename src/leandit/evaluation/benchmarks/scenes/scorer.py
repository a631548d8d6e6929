"""Whether a picture shows what its prompt says, by its pixels and the claims of the prompt.

A picture is right if it shows the claimed things in their numbers, colours and relation, and no other thing. GenEval
ignores things that the prompt does not ask for, except in counting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from leandit.evaluation.benchmarks.scenes.prompts import Claim, Claims
from leandit.evaluation.benchmarks.scenes.reader import READER_VERSION, Found, read_pictures

# It is raised if the same picture and prompt may be judged differently.
SCORER_VERSION = f"1.{READER_VERSION}"
# As in GenEval, an offset between two centres counts beyond a tenth of both widths or heights.
_POSITION_TOLERANCE = 0.1


def score(pictures: UInt8[Tensor, "pictures size size 3"], claims: Sequence[Claims]) -> list[bool]:
    """Return for each picture whether it shows its claims."""
    return [judge(claim, found) for claim, found in zip(claims, read_pictures(pictures), strict=True)]


def judge(claims: Claims, found: Sequence[Found]) -> bool:
    """Return whether the things that were found in a picture are exactly the claimed ones."""
    if len(found) != sum(claim.count for claim in claims.things):
        return False
    groups = [[thing for thing in found if thing.kind == claim.kind] for claim in claims.things]
    if not all(_fits(claim, group) for claim, group in zip(claims.things, groups, strict=True)):
        return False
    return claims.relation is None or claims.relation in relations(groups[0][0], groups[1][0])


def _fits(claim: Claim, group: list[Found]) -> bool:
    return len(group) == claim.count and all(claim.colour in (None, thing.colour) for thing in group)


def relations(one: Found, other: Found) -> set[str]:
    """Return the relations of one thing to the other: one, two on a diagonal, none at the same place.

    The offset between the centres of the boxes, less the tolerance, is scaled to length 1; each direction in which
    it is more than 1/2 holds. Reference: GenEval, section 3.2 and its code.
    """
    x = _beyond(one.x - other.x, one.width + other.width)
    y = _beyond(one.y - other.y, one.height + other.height)
    length = math.hypot(x, y)
    if not length:
        return set()
    holds = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {name for name, value in holds.items() if value > length / 2}


def _beyond(offset: float, extents: float) -> float:
    return math.copysign(max(abs(offset) - _POSITION_TOLERANCE * extents, 0.0), offset)
