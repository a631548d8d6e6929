"""Make a routing report of a run and write its files. The command line and Python use the same function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leandit.diffusion import build_sampler
from leandit.errors import LeanDiTError, unknown
from leandit.probing.content import content_report, find_pictures, record_content
from leandit.probing.draw import Drawn, check_pictures, draw_norms, draw_recorded, has_experts
from leandit.probing.norms import norm_report, write_norms
from leandit.probing.report import AXES, about, build_report, rounded
from leandit.probing.verdict import verdict
from leandit.probing.write import write_report
from leandit.run import SamplingConfig
from leandit.run.conditioner import Wanted
from leandit.sampling import (
    LoadedRun,
    choose,
    claim_folder,
    class_name,
    every_pair,
    load,
    output_folder,
    sampling_settings,
    weights_hash,
)
from leandit.sampling.generate import Progress

Plan = tuple[LoadedRun, Wanted, Sequence[int], SamplingConfig]
"""A run, the label or prompt of each picture, its seed, and the settings."""

# Default number of classes: a model may have a thousand.
_MOST_CHOICES = 8


@dataclass(frozen=True)
class Probed:
    """The result of a probe, for one run or for two side by side.

    `reports` are the results of `leandit.probing.build_report`, `drawn` the pictures with all recorded decisions.
    `folder` contains the files, or is None if nothing was saved. `page` says whether report.html is among the files;
    it needs plotly.
    """

    reports: tuple[dict[str, Any], ...] = field(repr=False)
    drawn: tuple[Drawn, ...] = field(repr=False)
    folder: Path | None
    page: bool

    @property
    def report(self) -> dict[str, Any]:
        """Return the report of the first run."""
        return self.reports[0]


def probe(
    run: LoadedRun | str | Path,
    labels: Iterable[int | str] | None = None,
    seeds: Iterable[int] = (0, 1),
    *,
    prompts: Iterable[str] | None = None,
    compare: LoadedRun | str | Path | None = None,
    by: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    pictures: int = 64,
    weights: str = "ema",
    device: str = "auto",
    precision: str = "fp32",
    out: str | Path | None = None,
    save: bool = True,
    figures: bool = True,
    progress: Progress | None = None,
) -> Probed:
    """Draw pictures of a run, record every decision of its routers, and report how the experts are used.

    One picture is drawn for each label or prompt and each seed. Labels default to the first 8 classes; `prompts`,
    `steps` and `guidance` default to the run's own. `compare` is a second run for the same report. `by` lists the axes
    along which the numbers are split: "layer", "timestep", "class", "position" and "caption"; None is all that apply.
    `pictures` real pictures of the run's data are noised to measure whether experts go to detail (see
    `leandit.probing.content_report`); if the data are not on this machine, `allocation` is None. `weights` is "ema" or
    "model", `device` and `precision` are as in `leandit.load`; a `LoadedRun` already has its own.

    report.json, report.html (if plotly is installed) and, with `figures`, PNGs are written to `out`, by default "probe"
    in the run's folder, or "probe-2", ... if there is another report. `drawing.json` has what decided the report. With
    save=False nothing is written. `progress(done, total)` counts sampler steps of each run.

    Of a run without experts, and of one that is compared with it, only the norms of the blocks' outputs are reported,
    by layer and by timestep: report.json and norms.png; `drawn` is empty.

    Raises LeanDiTError, before drawing, for more than 64 pictures, or arguments that do not fit the run.
    """
    axes = _axes(by)
    if pictures < 0:
        raise LeanDiTError(f"pictures = {pictures}: give the number of real pictures to measure on, or 0 for none")
    given = [run] if compare is None else [run, compare]
    loaded = [each if isinstance(each, LoadedRun) else load(each, weights, device, precision) for each in given]
    dense = next((each for each in loaded if not has_experts(each)), None)
    for each in loaded:
        _check_applies(None if by is None else axes, each, dense)
    # Two runs may read the choices, but an iterator can be read only once.
    labels = None if labels is None else list(labels)
    prompts = prompts if prompts is None or isinstance(prompts, str) else list(prompts)
    each_seed = list(seeds)
    plans = [_plan(each, labels, prompts, each_seed, steps, guidance) for each in loaded]
    facts = probe_facts(plans, axes, pictures if dense is None else 0)
    folder = _folder(out, loaded, facts) if save else None
    drawn: tuple[Drawn, ...] = ()
    if dense is None:
        drawn = tuple(draw_recorded(*plan, progress=progress) for plan in plans)
        built = ({**build_report(each, axes), **_allocation(each.run, pictures, progress)} for each in drawn)
        reports = tuple({**report, "verdict": verdict(report)} for report in built)
    else:
        reports = tuple(_norms(plan, axes, progress) for plan in plans)
    page = False
    if folder is not None:
        try:
            if dense is None:
                page = write_report(reports, drawn, folder, figures)
            else:
                write_norms(reports, folder, figures)
        except OSError as error:
            raise _not_written(folder, error) from None
    return Probed(reports, drawn, folder, page)


def _norms(plan: Plan, axes: Sequence[str], progress: Progress | None) -> dict[str, Any]:
    """Return the report of a run of which only the norms of the blocks' outputs are wanted."""
    run, wanted, seeds, settings = plan
    entries = norm_report(draw_norms(*plan, progress=progress))
    names = [""] * len(seeds) if wanted is None else [class_name(choice, run.class_names) for choice in wanted]
    pictures = [{"name": name, "seed": seed} for name, seed in zip(names, seeds, strict=True)]
    report = {"format": 1, "run": about(run, settings), "pictures": pictures}
    return rounded({**report, **{axis: entry for axis, entry in entries.items() if axis in axes}})


def _allocation(run: LoadedRun, pictures: int, progress: Progress | None) -> dict[str, Any]:
    """Return the report's entry on real pictures: None if they are not on this machine, no entry if none are wanted."""
    if not pictures:
        return {}
    source = find_pictures(run)
    if source is None:
        return {"allocation": None}
    return {"allocation": rounded(content_report(record_content(run, source, pictures, progress=progress)))}


def _axes(by: Sequence[str] | None) -> Sequence[str]:
    if by is None:
        return AXES
    chosen = [by] if isinstance(by, str) else by
    for axis in chosen:
        if axis not in AXES:
            raise unknown("--by", axis, AXES)
    return chosen


def _check_applies(by: Sequence[str] | None, run: LoadedRun, dense: LoadedRun | None) -> None:
    """Raise LeanDiTError if `by` names an axis that the run does not have. `dense` is a run without experts, if any."""
    if by is None:
        return
    if dense is not None and not set(by) <= {"layer", "timestep"}:
        raise LeanDiTError(f"{dense.path}: the run has no experts, so --by can only be layer, timestep or both")
    if "caption" in by and run.text is None:
        raise LeanDiTError(f"{run.path}: --by caption needs a model that reads text; this one does not")
    if "class" in by and not run.model.config.num_classes:
        raise LeanDiTError(f"{run.path}: --by class needs a model with classes; this one has none")


def _plan(
    run: LoadedRun,
    labels: Iterable[int | str] | None,
    prompts: Iterable[str] | None,
    seeds: Sequence[int],
    steps: int | None,
    guidance: float | None,
) -> Plan:
    """Return the label or prompt of each picture, its seed, and the settings. All are checked."""
    settings = sampling_settings(run.config.sampling, steps, guidance)
    build_sampler(settings.sampler, run.objective.path)
    if run.text is not None and prompts is None and labels is None:
        prompts = run.config.sampling.prompts[:_MOST_CHOICES] or None
    chosen = choose(run, labels, prompts)
    if chosen is not None:
        chosen = list(dict.fromkeys(chosen if labels or prompts else chosen[:_MOST_CHOICES]))
    wanted, each_seed = every_pair(chosen, seeds)
    check_pictures(each_seed)
    return run, wanted, each_seed, settings


def probe_facts(plans: Sequence[Plan], axes: Sequence[str], pictures: int) -> dict[str, Any]:
    """Return what decides a report, as JSON values: weights, choices, seeds and settings of each run."""
    runs = [
        {
            "run": run.path.resolve().name,
            "step": run.step,
            "weights": run.weights,
            "weights_sha256": weights_hash(run),
            **({} if run.precision == "fp32" else {"precision": run.precision}),
            **({} if run.compute == 1 else {"compute": run.compute}),
            "choices": wanted,
            "seeds": list(seeds),
            "sampling": settings.model_dump(mode="json", include={"sampler", "guidance"}),
        }
        for run, wanted, seeds, settings in plans
    ]
    return {"probe": runs, "by": list(axes), "pictures": pictures}


def _folder(given: str | Path | None, runs: Sequence[LoadedRun], facts: dict[str, Any]) -> Path:
    """Create the report's folder: in the run, or for two runs in the current folder, with both names."""
    name = given
    if name is None and len(runs) > 1:
        name = "-".join(["probe", *(each.path.resolve().name for each in runs)])
    out = output_folder(name, runs[0].path, "probe")
    try:
        return claim_folder(out, given is not None, facts)  # before drawing, because that may take long
    except OSError as error:
        raise _not_written(out, error) from None


def _not_written(out: Path, error: OSError) -> LeanDiTError:
    return LeanDiTError(f"{out}: the report cannot be written: {error.strerror or error}; choose another --out")
