"""FID's Inception-v3: its published layout, its quirks, and its resizing; and CLIP as CMMD reads it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors import inception
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.extractors.inception import FidInception, Inception, resize_as_tf1
from leandit.evaluation.extractors.weights import fetch, read_verified, sha256_of
from tiny_judges import save_clip


@pytest.fixture(scope="module")
def network() -> FidInception:
    torch.manual_seed(0)
    network = FidInception().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def test_the_layout_is_that_of_the_published_file(network: FidInception) -> None:
    tensors = network.state_dict()
    # Inception-v3 without its auxiliary classifier has 23,834,568 weights with 1,000 classes; FID's has 1,008.
    assert sum(weight.numel() for weight in network.parameters()) == 23_834_568 + 8 * 2049
    assert len(tensors) == 94 * 6 + 2
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_2.bn.running_mean": (192,),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes


@torch.no_grad()
def test_the_last_two_blocks_pool_as_the_tensorflow_graph_does(network: FidInception) -> None:
    x = torch.randn(1, 1280, 4, 4, generator=torch.Generator().manual_seed(0))
    average = F.avg_pool2d(x, 3, 1, 1) * 9 / F.avg_pool2d(torch.ones_like(x), 3, 1, 1).mul(9)
    first = network.get_submodule("Mixed_7b")
    torch.testing.assert_close(first(x)[:, -192:], first.get_submodule("branch_pool")(average), rtol=1e-4, atol=1e-5)
    y = torch.randn(1, 2048, 4, 4, generator=torch.Generator().manual_seed(1))
    last = network.get_submodule("Mixed_7c")
    pooled = last.get_submodule("branch_pool")(F.max_pool2d(y, 3, 1, 1))
    torch.testing.assert_close(last(y)[:, -192:], pooled)


@torch.no_grad()
def test_its_outputs(network: FidInception) -> None:
    x = torch.randn(1, 3, 299, 299, generator=torch.Generator().manual_seed(0))
    out = network(x)
    assert out.features.shape == (1, 2048)
    assert out.spatial.shape == (1, 7 * 17 * 17)
    torch.testing.assert_close(out.logits, network.fc(out.features) - network.fc.bias)


def test_resizing_is_tensorflow_1s() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.float64)
    ours = resize_as_tf1(torch.from_numpy(picture)[None].float(), 11)[0].numpy()
    for i in range(11):
        for j in range(11):
            y, x = i * 5 / 11, j * 7 / 11
            top, left = int(y), int(x)
            bottom, right = min(top + 1, 4), min(left + 1, 6)
            upper = picture[:, top, left] * (1 - (x - left)) + picture[:, top, right] * (x - left)
            lower = picture[:, bottom, left] * (1 - (x - left)) + picture[:, bottom, right] * (x - left)
            np.testing.assert_allclose(ours[:, i, j], upper * (1 - (y - top)) + lower * (y - top), rtol=1e-4, atol=1e-3)


def test_weights_must_be_the_published_ones(
    network: FidInception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inception.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(LeanDiTError, match=r"not the published weights of Inception: .* expected 6726825d"):
        Inception(path)
    monkeypatch.setattr(inception, "SHA256_PREFIX", sha256_of(path, "test")[:8])
    extractor = Inception(path)
    pictures = torch.randint(0, 256, (1, 32, 32, 1), dtype=torch.uint8)
    planes = resize_as_tf1(pictures.permute(0, 3, 1, 2).float().expand(1, 3, 32, 32), 299)
    with torch.no_grad():
        torch.testing.assert_close(extractor(pictures), network((planes - 128) / 128).features)
    assert extractor.about()["weights_sha256"] == sha256_of(path, "test")


def test_a_download_happens_once_and_says_why_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def download(url: str, path: str, hash_prefix: str | None = None) -> None:
        asked.append((url, path, hash_prefix))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = tmp_path / "checkpoints" / inception.FILE_NAME
    with pytest.raises(LeanDiTError, match=r"no network; fetch it by other means and name it with --weights-from"):
        fetch(inception.URL, inception.FILE_NAME, inception.SHA256_PREFIX)
    path.write_bytes(b"there")
    assert fetch(inception.URL, inception.FILE_NAME, inception.SHA256_PREFIX) == path
    assert asked == [(inception.URL, str(path), "6726825d")]


def test_clip_gives_unit_embeddings_named_by_what_is_there(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path / "clip")
    extractor = Clip.of_pictures(tmp_path / "clip")
    assert extractor.name == "CLIP-ViT-16x2/8@24"
    pictures = torch.randint(0, 256, (3, 24, 24, 3), dtype=torch.uint8)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.from_numpy(((pictures.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = F.normalize(model(pixel_values=pixels).image_embeds, dim=1)
    torch.testing.assert_close(extractor(pictures), expected, rtol=1e-4, atol=1e-5)
    assert extractor(torch.zeros(2, 40, 40, 1, dtype=torch.uint8)).shape == (2, 12)
    with pytest.raises(LeanDiTError, match="no model folder"):
        Clip.of_pictures(tmp_path)


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    folder = save_clip(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    # As in the published configs; transformers reads a tower's own.
    config["vision_config"]["projection_dim"] = config["projection_dim"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_clip_that_differs_in_its_config_alone_has_another_hash(clip_folder: Path) -> None:
    before = Clip.of_pictures(clip_folder)
    config = json.loads((clip_folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (clip_folder / "config.json").write_text(json.dumps(config))
    after = Clip.of_pictures(clip_folder)
    pictures = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(before(pictures), after(pictures))
    assert before.about()["weights_sha256"] != after.about()["weights_sha256"]


@pytest.mark.parametrize(
    "config",
    ["[]", "{", "3", '{"model_type": "clip", "vision_config": 3}', '{"vision_config": 3}', '{"model_type": "bert"}'],
)
def test_a_damaged_config_is_told_of(config: str, clip_folder: Path) -> None:
    (clip_folder / "config.json").write_text(config)
    for load in (Clip.of_pictures, Clip.from_folder):
        with pytest.raises(LeanDiTError, match=r"clip(: |.model\.safetensors: )"):
            load(clip_folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_clip_weights_are_told_of(content: bytes, clip_folder: Path) -> None:
    (clip_folder / "model.safetensors").write_bytes(content)
    with pytest.raises(LeanDiTError, match=r"clip(: |.model\.safetensors: )"):
        Clip.of_pictures(clip_folder)


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02a.", b"\x80\x02h\x05.", b"\x80\x02]."])
def test_damaged_weights_with_the_right_hash_are_told_of(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(LeanDiTError, match=r"cannot be read|no weights by name"):
        read_verified(path, "Inception", hashlib.sha256(content).hexdigest())
    torch.save({3: torch.zeros(2)}, path)
    with pytest.raises(LeanDiTError, match="no weights by name"):
        read_verified(path, "Inception", sha256_of(path, "Inception")[:8])
