"""`leandit probe`: a report of where a run's experts go, or of two runs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leandit.api import choose, every_pair, load, sampling_settings
from leandit.cli.output_folder import output_folder
from leandit.cli.progress import SamplingProgress
from leandit.cli.sample import parse_seeds
from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError, unknown
from leandit.probing import (
    AXES,
    HOW_TO_GET_THE_PAGE,
    Drawn,
    build_report,
    check_has_experts,
    check_pictures,
    draw_recorded,
    write_report,
)
from leandit.run import SamplingConfig
from leandit.run.conditioner import Wanted
from leandit.sampling import LoadedRun

# Without --labels or --prompts: a model may have a thousand classes.
_MOST_CHOICES = 8


@dataclass(frozen=True)
class _Plan:
    """What to draw with a run: `wanted[i]` for seed `seeds[i]`."""

    run: LoadedRun
    wanted: Wanted
    seeds: Sequence[int]
    settings: SamplingConfig


def run(options: argparse.Namespace) -> int:
    """Draw with each run while its routers are watched, write the report, and name the folder that it is in."""
    folders = _folders(options)
    by = _axes(options.by)
    seeds = parse_seeds(options.seeds)
    loaded = [load(folder, weights=options.weights) for folder in folders]
    for each in loaded:
        check_has_experts(each)
        _check_applies(options.by, by, each)
    plans = [_plan(options, each, seeds) for each in loaded]
    out = _output(options.out, loaded)
    drawn = [_draw(plan) for plan in plans]
    reports = [build_report(each, by) for each in drawn]
    try:
        page = write_report(reports, drawn, out)
    except OSError as error:
        raise _not_written(out, error) from None
    for report in reports:
        _say(report)
    print(f"{out / ('report.html' if page else 'report.json')}: the report; figures and numbers are beside it")
    if not page:
        print(f"plotly is not installed: {HOW_TO_GET_THE_PAGE}")
    return 0


def _output(given: str | None, loaded: Sequence[LoadedRun]) -> Path:
    """Return the folder of the report: in the run, or of two runs one of both their names in the current folder."""
    if given is None and len(loaded) > 1:
        given = "-".join(["probe", *(each.path.resolve().name for each in loaded)])
    out = output_folder(given, loaded[0].path, "probe")
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the drawing, which may take long
    except OSError as error:
        raise _not_written(out, error) from None
    return out


def _not_written(out: Path, error: OSError) -> LeanDiTError:
    return LeanDiTError(f"{out}: the report cannot be written: {error.strerror or error}; choose another --out")


def _say(report: dict[str, Any]) -> None:
    pairs, about = report["pairs"], report["run"]
    print(
        f"{about['folder']}, step {about['step']}: {pairs['total']:,} pairs of token and expert, "
        f"{pairs['experts_per_token']:.2f} experts per token (k = {about['k']})"
    )


def _folders(options: argparse.Namespace) -> Sequence[str]:
    if options.compare is None and options.folder is None:
        raise LeanDiTError("probe: name a run, as in `leandit probe runs/quickstart`, or two with --compare A B")
    if options.compare is not None and options.folder is not None:
        raise LeanDiTError(f"probe: give either one run or --compare A B, not both ({options.folder} stands before it)")
    return options.compare if options.compare is not None else [options.folder]


def _axes(text: str | None) -> Sequence[str]:
    """Return what the numbers are split by: all that apply unless the option names some."""
    if text is None:
        return AXES
    chosen = [part.strip() for part in text.split(",")]
    for part in chosen:
        if part not in AXES:
            raise unknown("--by", part, AXES)
    return chosen


def _check_applies(text: str | None, by: Sequence[str], run: LoadedRun) -> None:
    """Raise LeanDiTError where a split was asked for that a run has not."""
    if text is None:
        return
    if "caption" in by and run.text is None:
        raise LeanDiTError(f"{run.path}: --by caption is for models that read text, and this one does not")
    if "class" in by and not run.model.config.num_classes:
        raise LeanDiTError(f"{run.path}: --by class is for models with classes, and this one has none")


def _plan(options: argparse.Namespace, loaded: LoadedRun, seeds: Sequence[int]) -> _Plan:
    """Check all that was asked for against the run, before a folder is made or anything drawn."""
    settings = sampling_settings(loaded.config.sampling, options.steps, options.guidance)
    build_sampler(settings.sampler, loaded.objective.path)
    wanted, each_seed = every_pair(_choices(options, loaded), seeds)
    check_pictures(each_seed)
    return _Plan(loaded, wanted, each_seed, settings)


def _draw(plan: _Plan) -> Drawn:
    with SamplingProgress() as progress:
        return draw_recorded(plan.run, plan.wanted, plan.seeds, plan.settings, progress=progress)


def _choices(options: argparse.Namespace, loaded: LoadedRun) -> list[int | str] | None:
    """Return what to draw: as asked, or the first classes, or the prompts of the run's config."""
    labels = None if options.labels is None else [part.strip() for part in options.labels.split(",")]
    prompts = options.prompts
    if loaded.text is not None and prompts is None and labels is None:
        prompts = loaded.config.sampling.prompts[:_MOST_CHOICES] or None
    chosen = choose(loaded, labels, prompts)
    if chosen is None:
        return None
    return list(dict.fromkeys(chosen if labels or prompts else chosen[:_MOST_CHOICES]))
