"""The report: every number in its place, JSON's own types, and what was not asked for left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from routed_models import class_run, text_run

from leandit.data import DataConfig, LatentsConfig
from leandit.errors import LeanDiTError
from leandit.moe import max_violation
from leandit.presets import run_config
from leandit.probing import AXES, build_report, draw_recorded, report, write_report


@pytest.fixture(scope="module")
def drawn() -> Any:
    torch.set_num_threads(1)
    return draw_recorded(class_run(), [0, 1, 2, 0], [0, 1, 2, 3])


def test_numbers_by_layer_time_class_and_position(drawn: Any) -> None:
    tree = build_report(drawn)
    counts, trace = drawn.trace.counts, drawn.trace
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert np.array_equal(tree["position"]["maps"], counts)  # three steps of Euler, from noise to picture
    assert [moment["t"] for moment in tree["moments"]] == pytest.approx([1, 2 / 3, 1 / 3], rel=1e-5)
    assert tree["pictures"][3] == {"name": "ant", "seed": 3}
    load = trace.mask(1).sum((0, 1, 2))
    assert tree["layer"]["load"][1] == load.tolist()
    assert tree["layer"]["max_violation"][1] == pytest.approx(max_violation(torch.from_numpy(load).float()), rel=1e-5)
    assert np.array(tree["layer"]["co_selection"][1]).diagonal().tolist() == load.tolist()
    assert np.array(tree["timestep"]["experts_per_token"]) == pytest.approx(counts.mean((2, 3)), rel=1e-5)
    ants = trace.mask(0)[:, [0, 3]].sum((0, 1, 2))
    assert tree["class"]["names"] == ["ant", "bee", "<b>cat</b>"]
    assert tree["class"]["pictures"] == [2, 1, 1]
    assert tree["class"]["load"][0][0] == ants.tolist()
    flops = tree["timestep"]["flops"]
    assert sum(flops["per_picture"]) / 4 / 3 == pytest.approx(flops["per_picture_and_step"], rel=1e-5)
    assert sum(flops["per_call"]) / 3 == pytest.approx(flops["per_picture_and_step"], rel=1e-5)


def test_similarity_is_the_cosine_of_what_the_weights_are(drawn: Any) -> None:
    similarity = build_report(drawn)["layer"]["similarity"]
    layer = list(drawn.run.model.blocks)[1].moe
    for name, vectors in {
        "router": layer.router.gate_head.weight.detach(),
        "weights": torch.cat([layer.experts.w1.flatten(1), layer.experts.w2.flatten(1)], 1).detach(),
    }.items():
        for one in range(4):
            for other in range(4):
                expected = torch.cosine_similarity(vectors[one], vectors[other], dim=0)
                assert similarity[name][1][one][other] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("axis", AXES)
def test_only_what_was_asked_for(drawn: Any, axis: str) -> None:
    parts = set(build_report(drawn, [axis])) & set(AXES)
    assert parts == ({axis} if axis != "caption" else set())


def test_long_samplings_keep_every_pair(drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_MOST_MOMENTS", 2)
    tree = build_report(drawn)
    assert [moment["calls"] for moment in tree["moments"]] == [2, 1]
    assert np.array(tree["position"]["maps"]).sum() == tree["pairs"]["total"] == drawn.trace.counts.sum()


@pytest.mark.parametrize("name", ["dit-air", "dit-air-shared", "mmdit", "pixart-masking"])
def test_prompts_and_their_words(name: str) -> None:
    drawn = draw_recorded(text_run(name), ["red apple", "green apple!"], [0, 1])
    tree = build_report(drawn)
    assert "class" not in tree
    words = tree["caption"]["words"]
    assert words["names"] == ["apple", "red", "green"]
    assert words["pictures"] == [2, 1, 1]
    assert np.array(words["load"])[0].tolist() == tree["layer"]["load"]
    assert np.array(words["lift"])[0] == pytest.approx(np.ones((2, 4)))
    assert tree["caption"]["prompts"]["names"] == ["red apple", "green apple!"]
    assert tree["pairs"]["total"] == drawn.trace.counts.sum() > 0


def test_a_run_on_latents_has_maps_and_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leandit.probing.write.plot_routing", lambda reports, path: path.touch())
    run = class_run()
    data = DataConfig(source=LatentsConfig(path="set"), channels=3)
    run = replace(run, config=run.config.model_copy(update={"data": data}))
    drawn = draw_recorded(run, [0], [0])
    assert drawn.pictures is None
    write_report([build_report(drawn)], [drawn], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"report.json", "routing.png"}


def test_figures_are_pictures(drawn: Any, tmp_path: Path) -> None:
    tree = build_report(drawn)
    write_report([tree], [drawn], tmp_path / "a")
    write_report([build_report(drawn, ["layer"])], [drawn], tmp_path / "b")
    write_report([tree, tree], [drawn, drawn], tmp_path / "c")
    assert {path.name for path in (tmp_path / "a").glob("*.png")} == {"routing.png", "maps.png"}
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    assert json.loads((tmp_path / "c/report.json").read_text()) == {"runs": [tree, tree]}


def test_a_dense_run_and_too_many_pictures() -> None:
    run = class_run()
    with pytest.raises(LeanDiTError, match="65 pictures: a report holds at most 64"):
        draw_recorded(run, [0] * 65, range(65))
    dense = run_config("tiny", ["model.moe=null"])
    model = dense.model.complete(input_size=32, channels=3, num_classes=2).build()
    with pytest.raises(LeanDiTError, match=r"no MoE layer(.|\n)*leandit probe"):
        draw_recorded(replace(run, model=model, config=dense), [0], [0])


def test_long_prompts_that_begin_alike_are_groups_of_their_own() -> None:
    begin = "a very large red apple on a table of old wood in the last light of day"
    drawn = draw_recorded(text_run(), [f"{begin}, cut", f"{begin}, whole", f"{begin}, cut"], [0, 1, 2])
    prompts = build_report(drawn, ["caption"])["caption"]["prompts"]
    assert prompts["pictures"] == [2, 1]
    assert prompts["names"] == [drawn.names[0]] * 2
    for group, pictures in enumerate(([0, 2], [1])):
        expected = drawn.trace.mask(1)[:, pictures].sum((0, 1, 2))
        assert prompts["load"][group][1] == expected.tolist()


@pytest.mark.parametrize(("seeds", "words"), [([], "nothing to draw"), ([0, -1], "seed -1"), ([2**63], "seeds are")])
def test_seeds_that_are_none_or_out_of_range(seeds: list[int], words: str) -> None:
    with pytest.raises(LeanDiTError, match=words):
        draw_recorded(class_run(), [0] * len(seeds), seeds)
