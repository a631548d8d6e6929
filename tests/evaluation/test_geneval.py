"""GenEval's rules on detections with known answers, worked by hand, and its detectors on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks import ClipColours, Detected, GenEval, GenEvalConfig, TransformersDetector
from leandit.evaluation.benchmarks.colours import COLOURS, cut_out
from leandit.evaluation.benchmarks.geneval_rules import Prompt, is_right, read_prompts, relations
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.metric import Drawn
from tiny_judges import job, loud, pictures, save_clip, text_job

PICTURE = torch.zeros(100, 100, 3, dtype=torch.uint8)


class Painted:
    """Says of each object the colour that its box's left edge stands for."""

    def __call__(self, picture: torch.Tensor, objects: list[Detected]) -> list[str]:
        return [COLOURS[int(found.box[0]) // 10] for found in objects]

    def about(self) -> dict[str, Any]:
        return {"colours": "fake"}


def at(name: str, score: float, left: float = 0, top: float = 0, side: float = 10) -> Detected:
    return Detected(name, score, (left, top, left + side, top + side))


def prompt(tag: str, include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None) -> Prompt:
    record = {"tag": tag, "include": include, "prompt": "a photo"}
    return Prompt.model_validate_json(json.dumps(record | ({"exclude": exclude} if exclude else {})))


def judged(asked: Prompt, *objects: Detected) -> bool:
    return is_right(asked, PICTURE, list(objects), Painted(), GenEvalConfig())


def test_single_object_needs_a_score_above_the_threshold() -> None:
    asked = prompt("single_object", [{"class": "cat", "count": 1}])
    assert judged(asked, at("cat", 0.31))
    assert not judged(asked, at("cat", 0.3))
    assert not judged(asked, at("dog", 0.9))


def test_two_objects_need_both() -> None:
    asked = prompt("two_object", [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}])
    assert judged(asked, at("cat", 0.5), at("dog", 0.5), at("cow", 0.9))
    assert not judged(asked, at("cat", 0.5), at("cat", 0.6))


def test_counting_takes_sure_objects_only_and_refuses_one_too_many() -> None:
    asked = prompt("counting", [{"class": "cat", "count": 2}], [{"class": "cat", "count": 3}])
    sure = [at("cat", 0.95), at("cat", 0.91)]
    assert judged(asked, *sure)
    assert judged(asked, *sure, at("cat", 0.9))
    assert not judged(asked, *sure, at("cat", 0.92))
    assert not judged(asked, sure[0], at("cat", 0.5))


def test_the_surest_objects_must_have_the_colour() -> None:
    asked = prompt("colors", [{"class": "cat", "count": 1, "color": "yellow"}])
    yellow, red = at("cat", 0.9, left=20), at("cat", 0.8, left=0)
    assert judged(asked, red, yellow)
    # The red one is surer, and only as many as are wanted are looked at.
    assert not judged(asked, at("cat", 0.95, left=0), yellow)


def test_attributes_belong_to_their_own_object() -> None:
    asked = prompt(
        "color_attr", [{"class": "cat", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "color": "green"}]
    )
    assert judged(asked, at("cat", 0.9, left=0), at("dog", 0.9, left=30))
    assert not judged(asked, at("cat", 0.9, left=30), at("dog", 0.9, left=0))


def test_position_is_seen_from_the_other_object() -> None:
    asked = prompt(
        "position", [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["right of", 0]}]
    )
    assert judged(asked, at("dog", 0.9, left=10), at("cat", 0.9, left=60))
    assert not judged(asked, at("dog", 0.9, left=60), at("cat", 0.9, left=10))
    assert not judged(asked, at("cat", 0.9, left=60))


def test_only_so_many_objects_of_a_class_are_looked_at() -> None:
    asked = prompt("counting", [{"class": "cat", "count": 1}], [{"class": "cat", "count": 17}])
    assert judged(asked, *(at("cat", 0.95) for _ in range(40)))


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        # Centres 40 apart, sizes 10 + 10: 40 - 2 of 40 counts, 0.95.
        ((0, 0, 10, 10), (40, 0, 50, 10), {"left of"}),
        ((0, 40, 10, 50), (0, 0, 10, 10), {"below"}),
        # 30 right and 30 up: 28 / 42.4 = 0.66 along both axes.
        ((30, 0, 40, 10), (0, 30, 10, 40), {"right of", "above"}),
        # 40 right, 20 down: 38 / 44.7 and 18 / 44.7 = 0.4.
        ((40, 20, 50, 30), (0, 0, 10, 10), {"right of"}),
        # 2 apart is within the margin of 2.
        ((2, 0, 12, 10), (0, 0, 10, 10), set()),
        # 3 apart: 1 / 3 counts, under a half.
        ((3, 0, 13, 10), (0, 0, 10, 10), set()),
        # 5 apart: 3 / 5.
        ((5, 0, 15, 10), (0, 0, 10, 10), {"right of"}),
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
    ],
)
def test_relations(box: Any, other: Any, expected: set[str]) -> None:
    assert relations(box, other) == expected


class FakeDetector:
    """Sees a cat in a bright picture and a dog in a dark one."""

    classes = frozenset({"cat", "dog"})

    def __call__(self, picture: torch.Tensor) -> list[Detected]:
        return [at("cat" if picture.float().mean() > 127 else "dog", 0.95, left=0)]

    def about(self) -> dict[str, Any]:
        return {"detector": "fake"}


LINES = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
]


def write_prompts(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_score_is_the_mean_over_tasks(tmp_path: Path, folders: dict[str, Path]) -> None:
    wanted = text_job(folders["sentence"], num_samples=7, paths={"geneval": write_prompts(tmp_path, LINES)})
    metric = GenEval(FakeDetector(), Painted())
    plan = metric.plan(wanted)
    assert list(plan.wanted or ()) == [line["prompt"] for line in LINES for _ in range(2)]
    bright, dark = torch.full((8, 8, 3), 255, dtype=torch.uint8), torch.zeros(8, 8, 3, dtype=torch.uint8)
    # Cat, no cat; dog, dog; red cat, no cat: single object 3 of 4, colours 1 of 2.
    drawn = Drawn(torch.stack([bright, dark, dark, dark, bright, dark]), plan)
    result = metric.measure(wanted, drawn)
    assert result.values == {"GenEval (single_object)": 0.75, "GenEval (colors)": 0.5, "GenEval": 0.625}
    assert result.made_of["rules"]["counting_threshold"] == 0.9
    assert result.made_of["pictures_per_prompt"] == 2


def test_bad_jobs_are_refused_before_anything_is_drawn(tmp_path: Path, folders: dict[str, Path]) -> None:
    paths = {"geneval": write_prompts(tmp_path, LINES)}
    metric = GenEval(FakeDetector(), Painted())
    with pytest.raises(LeanDiTError, match=r"3 prompts, 2 samples.*--num-samples 3"):
        metric.plan(text_job(folders["sentence"], num_samples=2, paths=paths))
    with pytest.raises(LeanDiTError, match="prompts"):
        metric.plan(job(paths=paths))
    with pytest.raises(LeanDiTError, match="--weights-from detector=PATH"):
        GenEval().plan(text_job(folders["sentence"], paths=paths))
    with pytest.raises(LeanDiTError, match="--weights-from geneval=PATH"):
        metric.plan(text_job(folders["sentence"]))
    cow = {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a cow"}
    paths = {"geneval": write_prompts(tmp_path, [*LINES, cow])}
    with pytest.raises(LeanDiTError, match="'cow'"):
        metric.plan(text_job(folders["sentence"], paths=paths))


@pytest.mark.parametrize(
    "line",
    [
        '{"tag": "single_object", "include": [], "prompt": "x"}',
        '{"tag": "songs", "include": [{"class": "cat", "count": 1}], "prompt": "x"}',
        '{"tag": "position", "include": [{"class": "cat", "count": 1, "position": ["left of", 0]}], "prompt": "x"}',
        "[]",
        "{",
    ],
)
def test_bad_prompts_name_their_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n\n" + line)
    with pytest.raises(LeanDiTError, match="line 3"):
        read_prompts(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(LeanDiTError, match="no prompts"):
        read_prompts(tmp_path / "none.jsonl")


def test_an_object_is_cut_out_of_grey() -> None:
    picture = torch.arange(10 * 20 * 3, dtype=torch.int64).remainder(251).byte().view(10, 20, 3)
    mask = np.zeros((10, 20), bool)
    mask[2:8, 4:14] = True
    found = Detected("cat", 0.9, (4.2, 1.8, 14.1, 8.3), mask)
    cut = cut_out(picture, found)
    # Box 4..14 x 2..8, of which the middle six columns: 6..12.
    assert torch.equal(cut, picture[2:8, 6:12])
    mask[:, 6:9] = False
    assert (cut_out(picture, found)[:, :3] == 153).all()
    assert cut_out(picture, at("cat", 1, left=19.6, top=-5, side=30)).shape == (1, 1, 3)


def test_colours_are_clips_nearest_sentences(tmp_path: Path) -> None:
    clip = Clip.from_folder(save_clip(tmp_path))
    shown = pictures(1, 32)[0]
    found = [at("apple", 0.9, left, top, 16) for left, top in ((0, 0), (16, 0), (0, 16), (8, 8))]
    likeness = []
    for colour in ("red", "green"):
        said = (f"{colour} apple", f"{colour}-colored apple", f"{colour} object")
        point = clip.texts([f"a photo of a {words}" for words in said]).mean(0)
        likeness.append(point / point.norm())
    colours = ClipColours(clip)
    for one, name in zip(found, colours(shown, found), strict=True):
        left, top = int(one.box[0]), int(one.box[1])
        seen = clip(shown[top : top + 16, left : left + 16][None])[0]
        scores = [float(seen @ point) for point in likeness]
        own = colours._likeness(shown, one)
        assert [float(own[0]), float(own[3])] == pytest.approx(scores, abs=1e-5)
        assert name == COLOURS[int(own.argmax())]


def test_masks_become_objects() -> None:
    detector = object.__new__(TransformersDetector)
    detector._names = {0: "cat", 1: "dog"}
    masks = torch.full((2, 6, 8), -9.0)
    masks[0, 1:3, 2:7] = 2.0
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    found = detector._from_masks(scores, masks)
    # The second query's mask is empty; the first is a cat with .9 and a dog with .1, both times sigmoid(2) = .8808.
    assert [(one.name, one.box) for one in found] == [("cat", (2, 1, 7, 3)), ("dog", (2, 1, 7, 3))]
    assert [one.score for one in found] == pytest.approx([0.9 * 0.880797, 0.1 * 0.880797], abs=1e-5)
    assert found[0].mask is not None
    assert found[0].mask.sum() == 10


def save_detr(folder: Path) -> Path:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"], layer_type="basic"
    )
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 5}
    labels = {0: "cat", 1: "mouse", 2: "tvmonitor"}
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, backbone=None, **sizes, **heads, id2label=labels
    )
    torch.manual_seed(0)
    loud(DetrForObjectDetection(config)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 40}}')
    return folder


def test_detr_agrees_with_transformers_own_reading(tmp_path: Path) -> None:
    from transformers import DetrForObjectDetection

    folder = save_detr(tmp_path)
    detector = TransformersDetector(folder)
    assert detector.classes == {"cat", "computer mouse", "tv"}
    shown = pictures(1, 40)[0]
    found = detector(shown)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        out = DetrForObjectDetection.from_pretrained(folder).eval()(
            pixel_values=((shown / 255 - mean) / std).permute(2, 0, 1)[None]
        )
    chances = out.logits[0].softmax(-1)[:, :3]
    order = chances.max(-1).values.argsort(descending=True)
    assert [one.score for one in found] == pytest.approx(chances.max(-1).values[order].tolist(), abs=1e-5)
    x, y, w, h = (out.pred_boxes[0][order[0]] * 40).tolist()
    assert found[0].box == pytest.approx((x - w / 2, y - h / 2, x + w / 2, y + h / 2), abs=1e-3)
    assert len(detector.about()["weights_sha256"]) == 64


def test_a_folder_that_is_no_detector_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(LeanDiTError, match="mask2former or detr"):
        TransformersDetector(folders["sentence"])
