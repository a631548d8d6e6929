"""The changes of a config that a resumed run allows. The facts on each field decide."""

from __future__ import annotations

from typing import Any

from leandit.config import Config, Fact, diff, facts_at

Change = tuple[str, Any, Any]
_ALWAYS = {Fact.MAY_CHANGE, Fact.BACKEND, Fact.DEVICE}


def identity_changes(old: Config, new: Config) -> list[Change]:
    """Return (key, old value, new value) for each change that a resumed run does not allow.

    A path may change, but it may not be added or removed. `leandit.run.identity` compares the fingerprints of the data
    at the path.
    """
    return [change for change in diff(old, new) if not _is_allowed(change, old, new)]


def _is_allowed(change: Change, old: Config, new: Config) -> bool:
    key, before, after = change
    facts = facts_at(old, key) | facts_at(new, key)
    if facts & _ALWAYS:
        return True
    if Fact.PATH in facts:
        return before is not None and after is not None
    # A constant rate does not depend on the number of steps, so such a run can be extended.
    schedule = getattr(new, "schedule", None)
    return Fact.RUN_LENGTH in facts and schedule is not None and schedule.decay == "constant"
