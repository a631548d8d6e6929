"""CLIPScore, PickScore, HPSv2 and LAION aesthetics on tiny random models, against transformers' own use of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.judges import AestheticsHead, ClipScore, HpsV2, LaionAesthetics, PickScore
from leandit.evaluation.metric import Drawn, Metric, Plan
from leandit.evaluation.plans import drawn_sha256
from tiny_judges import job, pictures, save_clip, text_job, tokenizer

PROMPTS = ["red apple", "green tiger, a photo", "apple"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def reference_cosines(folder: Path, shown: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Return cosines as transformers computes them: its image processor, one text at a time, its own forward."""
    from transformers import CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    size = {"height": 16, "width": 16}
    processor = CLIPImageProcessor(size=size, do_center_crop=False)
    pixels = processor([Image.fromarray(p.numpy()) for p in shown], return_tensors="pt").pixel_values
    found = []
    for pixel, prompt in zip(pixels, prompts, strict=True):
        words = tokenizer()([prompt], return_tensors="pt")
        with torch.no_grad():
            out = model(pixel_values=pixel[None], input_ids=words.input_ids, attention_mask=words.attention_mask)
        found.append(out.logits_per_image[0, 0] / model.logit_scale.exp())
    return torch.stack(found)


def measured(metric: Metric, paths: dict[str, Path], encoder: Path, shown: torch.Tensor) -> tuple[dict, dict]:
    result = metric.measure(text_job(encoder, paths=paths), Drawn(shown, Plan(PROMPTS, range(3))))
    return result.values, result.made_of


def test_clip_score_is_the_papers_formula(clip_folder: Path, folders: dict[str, Path]) -> None:
    shown = pictures(3)
    values, made_of = measured(ClipScore(), {"clip": clip_folder}, folders["sentence"], shown)
    cosines = reference_cosines(clip_folder, shown, [f"A photo depicts {prompt}" for prompt in PROMPTS])
    expected = np.mean([2.5 * max(float(c), 0.0) for c in cosines])
    assert values["CLIPScore"] == pytest.approx(expected, abs=1e-5)
    plain = reference_cosines(clip_folder, shown, PROMPTS)
    assert values["CLIP-cos-x100"] == pytest.approx(100 * float(plain.mean()), abs=1e-3)
    assert abs(float(plain.mean() - cosines.mean())) > 1e-3  # the prefix counts
    assert made_of["scales"].keys() == values.keys() == {"CLIPScore", "CLIP-cos-x100"}
    assert len(made_of["weights_sha256"]) == 64
    assert made_of["drawn_sha256"] == drawn_sha256(Plan(PROMPTS, range(3)))


def test_negative_cosines_count_as_zero(clip_folder: Path) -> None:
    judge = Clip.from_folder(clip_folder)
    shown = pictures(64)
    scores = ClipScore().scores(judge, shown, ["red apple"] * 64, 16)["CLIPScore"]
    plain = reference_cosines(clip_folder, shown, ["A photo depicts red apple"] * 64)
    assert (plain < 0).any()
    assert (scores >= 0).all()
    torch.testing.assert_close(scores, 2.5 * plain.clamp(min=0), atol=1e-5, rtol=0)


def test_pick_score_scales_the_cosine(clip_folder: Path, folders: dict[str, Path]) -> None:
    shown = pictures(3)
    values, _ = measured(PickScore(), {"pickscore": clip_folder}, folders["sentence"], shown)
    scale = float(Clip.from_folder(clip_folder).logit_scale)
    expected = scale * float(reference_cosines(clip_folder, shown, PROMPTS).mean())
    assert scale > 5
    assert values["PickScore"] == pytest.approx(expected, abs=1e-4)


def test_hps_from_a_folder_is_a_hundred_cosines(clip_folder: Path, folders: dict[str, Path]) -> None:
    shown = pictures(3)
    values, _ = measured(HpsV2(), {"hps": clip_folder}, folders["sentence"], shown)
    expected = 100 * float(reference_cosines(clip_folder, shown, PROMPTS).mean())
    assert values["HPSv2"] == pytest.approx(expected, abs=1e-3)


def test_resizing_is_pillows_up_to_rounding(clip_folder: Path) -> None:
    shown = pictures(4, 24)
    judge = Clip.from_folder(clip_folder)
    small = [np.asarray(Image.fromarray(p.numpy()).resize((16, 16), Image.Resampling.BICUBIC)) for p in shown]
    expected = judge(torch.from_numpy(np.stack(small)))
    assert ((judge(shown) * expected).sum(1) > 0.9999).all()


def test_a_picture_does_not_depend_on_its_batch(clip_folder: Path) -> None:
    judge = Clip.from_folder(clip_folder)
    shown = pictures(5)
    torch.testing.assert_close(judge(shown, 5), judge(shown, 2), atol=1e-6, rtol=0)
    # A short text beside a long one is padded.
    torch.testing.assert_close(judge.texts(PROMPTS), torch.cat([judge.texts([p]) for p in PROMPTS]), atol=1e-6, rtol=0)


def test_aesthetics_head_is_its_five_layers(tmp_path: Path, folders: dict[str, Path]) -> None:
    wide = save_clip(tmp_path / "clip", projection=768)
    torch.manual_seed(0)
    # As published: a Sequential called `layers` with dropout at 1, 3 and 5.
    sizes = {0: (768, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    state = {f"layers.{i}.weight": torch.randn(out, into) / 20 for i, (into, out) in sizes.items()}
    state |= {f"layers.{i}.bias": torch.randn(out) for i, (_, out) in sizes.items()}
    torch.save(state, tmp_path / "head.pth")
    shown = pictures(3)
    x = Clip.from_folder(wide)(shown).double().numpy()
    assert np.linalg.norm(x, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for i in sizes:
        x = x @ state[f"layers.{i}.weight"].double().numpy().T + state[f"layers.{i}.bias"].double().numpy()
    paths = {"aesthetics": tmp_path / "head.pth", "clip_l14": wide}
    values, made_of = measured(LaionAesthetics(), paths, folders["sentence"], shown)
    assert values["LAION aesthetics"] == pytest.approx(float(x.mean()), abs=1e-4)
    assert made_of["head_sha256"] != made_of["weights_sha256"]
    assert made_of["drawn_sha256"] == drawn_sha256(Plan(PROMPTS, range(3)))


def test_aesthetics_needs_the_wide_clip(tmp_path: Path, clip_folder: Path) -> None:
    torch.save(AestheticsHead().state_dict(), tmp_path / "head.pth")
    paths = {"aesthetics": tmp_path / "head.pth", "clip_l14": clip_folder}
    with pytest.raises(LeanDiTError, match=r"16 wide.*768"):
        LaionAesthetics().plan(job(paths=paths))


@pytest.mark.parametrize("metric", [ClipScore(), PickScore(), HpsV2()])
def test_class_models_are_refused(metric: Metric) -> None:
    with pytest.raises(LeanDiTError, match="prompts"):
        metric.plan(job())


@pytest.mark.parametrize(
    ("metric", "name"),
    [(ClipScore(), "clip"), (PickScore(), "pickscore"), (HpsV2(), "hps"), (LaionAesthetics(), "aesthetics")],
)
def test_missing_weights_are_named_before_anything_is_drawn(
    metric: Metric, name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(LeanDiTError, match=f"--weights-from {name}=PATH"):
        metric.plan(text_job(folders["sentence"]))


def test_a_folder_of_another_kind_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(LeanDiTError, match="'bert'"):
        ClipScore().plan(text_job(folders["sentence"], paths={"clip": folders["sentence"]}))
    with pytest.raises(LeanDiTError, match="no model folder"):
        ClipScore().plan(text_job(folders["sentence"], paths={"clip": tmp_path}))
    with pytest.raises(LeanDiTError, match="no such file"):
        ClipScore().plan(text_job(folders["sentence"], paths={"clip": tmp_path / "absent"}))


def test_the_plan_is_the_references_captions(clip_folder: Path, folders: dict[str, Path]) -> None:
    plan = ClipScore().plan(text_job(folders["sentence"], paths={"clip": clip_folder}, num_samples=7))
    assert len(plan.seeds) == 7
    assert plan.wanted is not None
    assert all(str(prompt).endswith("emoji") for prompt in plan.wanted)
