"""What may differ between a run and the config that it is resumed with: decided by the facts on each field."""

from __future__ import annotations

from typing import Any

from leandit.config import Config, Fact, diff, facts_at

Change = tuple[str, Any, Any]
_ALWAYS = {Fact.MAY_CHANGE, Fact.BACKEND, Fact.DEVICE}


def identity_changes(old: Config, new: Config) -> list[Change]:
    """Return (key, old value, new value) for each change between two configs that would make another run of it.

    A path may change, but not appear or vanish. That the same things are there is the business of
    `leandit.run.identity`, which compares fingerprints.
    """
    return [change for change in diff(old, new) if not _is_allowed(change, old, new)]


def _is_allowed(change: Change, old: Config, new: Config) -> bool:
    key, before, after = change
    facts = facts_at(old, key) | facts_at(new, key)
    if facts & _ALWAYS:
        return True
    if Fact.PATH in facts:
        return before is not None and after is not None
    # A constant rate does not depend on how many steps there will be, so such a run can be made longer.
    schedule = getattr(new, "schedule", None)
    return Fact.RUN_LENGTH in facts and schedule is not None and schedule.decay == "constant"
