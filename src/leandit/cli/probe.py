"""`leandit probe`: a report of where a run's experts go, or of two runs side by side."""

from __future__ import annotations

import argparse
from typing import Any

from leandit.api import probe
from leandit.cli.output import say
from leandit.cli.progress import SamplingProgress
from leandit.cli.sample import parse_seeds
from leandit.errors import LeanDiTError
from leandit.probing import HOW_TO_GET_THE_PAGE


def run(options: argparse.Namespace) -> int:
    """Write the report and name the folder that it is in."""
    if options.compare is None and options.folder is None:
        raise LeanDiTError("probe: name a run, as in `leandit probe runs/quickstart`, or two with --compare A B")
    if options.compare is not None and options.folder is not None:
        raise LeanDiTError(f"probe: give either one run or --compare A B, not both ({options.folder} stands before it)")
    first, second = options.compare or (options.folder, None)
    with SamplingProgress() as progress:
        probed = probe(
            first,
            _parts(options.labels),
            parse_seeds(options.seeds),
            prompts=options.prompts,
            compare=second,
            by=_parts(options.by),
            steps=options.steps,
            guidance=options.guidance,
            pictures=options.pictures,
            weights=options.weights,
            device=options.device,
            precision=options.precision,
            out=options.out,
            progress=progress,
        )
    assert probed.folder is not None
    if not probed.drawn:
        for report in probed.reports:
            print(_on_norms(report))
        say(f"{probed.folder / 'report.json'}: the norms of the blocks' outputs; norms.png beside it shows them")
        return 0
    for report in probed.reports:
        pairs, about = report["pairs"], report["run"]
        say(
            f"{about['folder']}, step {about['step']}: {pairs['total']:,} pairs of token and expert, "
            f"{pairs['experts_per_token']:.2f} experts per token (k = {about['k']})"
        )
        print(f"{about['folder']}: {report['verdict']['sentence']}")
        for check in report["verdict"]["checks"]:
            if check["advice"]:
                print(f"  {check['name']} {check['value']}, normal is {check['normal']}. {check['advice']}")
        print(_on_real_pictures(report.get("allocation"), about["folder"], options.pictures))
    name = "report.html" if probed.page else "report.json"
    say(f"{probed.folder / name}: the report; figures and numbers are beside it")
    if not probed.page:
        say(f"plotly is not installed: {HOW_TO_GET_THE_PAGE}")
    return 0


def _on_norms(report: dict[str, Any]) -> str:
    about = f"{report['run']['folder']}, step {report['run']['step']}: no routing to report"
    if "layer" not in report:
        return about
    norms = report["layer"]["block_norms"]
    growth = norms["growth"]
    first, *_, last = ("not finite" if norm is None else f"{norm:.3g}" for norm in (norms["added"] * 2))
    return (
        f"{about}; L2 norm per token of what a block adds: {first} in block 1, {last} in block "
        f"{len(norms['added'])}{'' if growth is None else f' ({growth:.1f} times)'}"
    )


def _on_real_pictures(allocation: dict[str, Any] | None, folder: str, pictures: int) -> str:
    if not pictures:
        return f"{folder}: not measured on real pictures (--pictures 0)"
    if allocation is None:
        return f"{folder}: its pictures are not on this machine, so where experts go on real pictures was not measured"
    ratio, correlation = allocation["detail_over_flat"], allocation["error_correlation"]
    ends = f"{allocation['over_time'][0]:.2f} experts per token at t = {allocation['times'][0]} (noise)"
    return (
        f"{folder}, {allocation['pictures']} real pictures: experts on detail over flat parts "
        f"{'none' if ratio is None else f'{ratio:.2f}'}, {ends} and {allocation['over_time'][-1]:.2f} at "
        f"t = {allocation['times'][-1]}, correlation with the error "
        f"{'none' if correlation is None else f'{correlation:.2f}'}"
    )


def _parts(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
