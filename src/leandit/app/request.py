"""Requests of visitors, checked on the server: nothing that comes over HTTP is trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from leandit.api import sampling_settings
from leandit.app.runs import ServedRun
from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError, unknown
from leandit.moe.budget import check_share
from leandit.run import SamplingConfig
from leandit.sampling import LoadedRun
from leandit.text import check_captions

# The order of the inputs that a page sends.
FIELDS = ("run", "prompt", "label", "seed", "steps", "guidance", "budget")
# The largest whole number up to which JavaScript is exact.
MAX_SEED = 2**53 - 1
MAX_PROMPT = 1000
BUDGETS = (0.5, 2.0)
_STEPS = 200
_GUIDANCE = 20.0


@dataclass(frozen=True)
class DrawRequest:
    """One valid request for a picture. `choice` is a prompt, a label, or None for a model without either."""

    served: ServedRun
    choice: int | str | None
    seed: int
    settings: SamplingConfig
    budget: float


def max_steps(run: LoadedRun) -> int:
    """Return the largest number of sampler steps that a visitor may request: 200, or the run's own if it is larger."""
    return max(_STEPS, run.config.sampling.sampler.steps)


def max_guidance(run: LoadedRun) -> float:
    """Return the largest guidance scale that a visitor may request: 20, or the run's own if it is larger."""
    return max(_GUIDANCE, run.config.sampling.guidance.scale)


def check_fields(runs: Mapping[str, ServedRun], values: tuple[Any, ...]) -> dict[str, str]:
    """Return the problems of the raw values by field, in the order of FIELDS. Empty if the request is valid.

    If the run is unknown, no other field is checked. A text model ignores the label, a class model the prompt.
    """
    given = dict(zip(FIELDS, values, strict=True))
    if (problem := _problem(lambda: find_run(runs, given["run"]))) is not None:
        return {"run": problem}
    served = runs[given["run"]]
    checks: dict[str, Callable[[], object]] = {
        "prompt" if served.run.text is not None else "label": lambda: _choice(served, given),
        "seed": lambda: whole("seed", given["seed"], 0, MAX_SEED),
        "steps": lambda: whole("steps", given["steps"], 1, max_steps(served.run)),
        "guidance": lambda: _check_guidance(served.run, given["guidance"]),
        "budget": lambda: _check_budget(served, given["budget"]),
    }
    found = {name: _problem(check) for name, check in checks.items()}
    problems = {name: problem for name, problem in found.items() if problem is not None}
    if not problems and (problem := _problem(lambda: _settings(served.run, given))) is not None:
        problems["steps"] = problem
    return problems


def read_request(runs: Mapping[str, ServedRun], values: tuple[Any, ...]) -> DrawRequest:
    """Return the request for the raw values. Raises LeanDiTError for the first invalid value."""
    for problem in check_fields(runs, values).values():
        raise LeanDiTError(problem)
    given = dict(zip(FIELDS, values, strict=True))
    served = runs[given["run"]]
    return DrawRequest(
        served, _choice(served, given), int(given["seed"]), _settings(served.run, given), float(given["budget"])
    )


def find_run(runs: Mapping[str, ServedRun], name: object) -> ServedRun:
    """Return the run of this name, or raise LeanDiTError."""
    if not isinstance(name, str):
        raise LeanDiTError(f"run: {_kind(name)} is not a name; choose one of {', '.join(runs)}")
    if name not in runs:
        raise unknown("run", name[:40], runs)
    return runs[name]


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number in the range, ends included, or raise LeanDiTError."""
    checked = number(name, value, low, high)
    if checked != int(checked):
        raise LeanDiTError(f"{name} {checked:g}: give a whole number from {low} to {high}")
    return int(checked)


def number(name: str, value: object, low: float, high: float) -> float:
    """Return a finite number in the range, ends included, or raise LeanDiTError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LeanDiTError(f"{name}: {_kind(value)} is not a number; give one from {low:.16g} to {high:.16g}")
    # The comparison is also False for NaN.
    if not low <= value <= high:
        shown = value if isinstance(value, float) else "the number given"
        raise LeanDiTError(f"{name}: {shown} is out of range; give a number from {low:.16g} to {high:.16g}")
    return value


def _choice(served: ServedRun, given: Mapping[str, Any]) -> int | str | None:
    run = served.run
    if run.text is not None:
        assert run.config.text is not None
        limit = min(MAX_PROMPT, run.config.text.max_caption_chars)
        prompt = given["prompt"]
        if isinstance(prompt, str) and len(prompt) > limit:
            raise LeanDiTError(f"prompt: {len(prompt)} characters; write at most {limit}")
        check_captions([prompt], limit, allow_empty=False, names=["prompt"])
        return str(prompt)
    if not served.config.num_classes:
        return None
    label = given["label"]
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise LeanDiTError(f"class: {_kind(label)} is neither a name nor a number")
    return run.label(label)


def _check_guidance(run: LoadedRun, value: object) -> None:
    scale = number("guidance", value, 0, max_guidance(run))
    if run.text is not None or run.model.config.num_classes:
        run.check_guidance(scale)


def _check_budget(served: ServedRun, value: object) -> None:
    budget = number("compute budget", value, *BUDGETS)
    if budget != 1 and not served.has_budget:
        raise LeanDiTError("compute budget: the number of this run's experts is fixed; leave it at 1")
    check_share(served.run.model, float(budget), "compute budget")


def _settings(run: LoadedRun, given: Mapping[str, Any]) -> SamplingConfig:
    settings = sampling_settings(run.config.sampling, int(given["steps"]), float(given["guidance"]))
    build_sampler(settings.sampler, run.objective.path)
    return settings


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except LeanDiTError as error:
        return str(error)
    return None


def _kind(value: object) -> str:
    names = {type(None): "nothing", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "this value")
