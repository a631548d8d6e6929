"""open_clip's weights in transformers' classes, against a CLIP written here with open_clip's names."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.clip import Clip
from leandit.evaluation.extractors.open_clip import clip_from_open_clip, read_state
from leandit.evaluation.judges import HpsV2
from leandit.evaluation.metric import Drawn, Plan
from tiny_judges import WORDS, loud, pictures, text_job, tokenizer

WIDTH, PATCH, SIZE, OUT, LENGTH = 32, 8, 16, 16, 12


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Tower(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros((SIZE // PATCH) ** 2 + 1, WIDTH))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Tower(WIDTH)
        self.proj = nn.Parameter(torch.zeros(WIDTH, OUT))

    def forward(self, x: Tensor) -> Tensor:
        cells = self.conv1(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(x), 1, -1)
        h = self.ln_pre(torch.cat([first, cells], 1) + self.positional_embedding)
        return self.ln_post(self.transformer(h)[:, 0]) @ self.proj


class OpenClip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual()
        self.transformer = Tower(24)
        self.token_embedding = nn.Embedding(len(WORDS), 24)
        self.positional_embedding = nn.Parameter(torch.zeros(LENGTH, 24))
        self.ln_final = nn.LayerNorm(24)
        self.text_projection = nn.Parameter(torch.zeros(24, OUT))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("attn_mask", torch.full((LENGTH, LENGTH), float("-inf")).triu(1))

    def text(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        h = self.token_embedding(ids) + self.positional_embedding[:length]
        h = self.ln_final(self.transformer(h, self.attn_mask[:length, :length]))
        # The end of the text has the highest number.
        return h[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection


@pytest.fixture(scope="module")
def original() -> OpenClip:
    torch.manual_seed(0)
    return loud(OpenClip())


def test_both_towers_agree(original: OpenClip) -> None:
    model = clip_from_open_clip(original.state_dict(), 2, 2).eval()
    x, ids = torch.randn(3, 3, SIZE, SIZE), torch.tensor([[10, 5, 7, 11, 0], [10, 3, 4, 2, 11]])
    with torch.no_grad():
        seen = model.visual_projection(model.vision_model(x).pooler_output)
        read = model.text_projection(model.text_model(ids).pooler_output)
        torch.testing.assert_close(seen, original.visual(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read, original.text(ids), atol=1e-5, rtol=1e-5)
    assert float(model.logit_scale.detach()) == pytest.approx(float(original.logit_scale.detach()))


def test_weights_are_read_from_either_kind_of_file(original: OpenClip, tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in original.state_dict().items()}
    save_file(state, tmp_path / "hps.safetensors")
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "hps.pt")
    for name in ("hps.safetensors", "hps.pt"):
        read = read_state(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_hps_scores_from_a_file(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    original = loud(OpenClip())
    save_file({n: t.contiguous() for n, t in original.state_dict().items()}, tmp_path / "hps.safetensors")
    tokenizer().save_pretrained(tmp_path / "words")
    (tmp_path / "words" / "config.json").write_text('{"model_type": "clip"}')
    monkeypatch.setattr("leandit.evaluation.judges.clip_from_open_clip", lambda state: clip_from_open_clip(state, 2, 2))
    job = text_job(
        folders["sentence"], paths={"hps": tmp_path / "hps.safetensors", "hps_tokenizer": tmp_path / "words"}
    )
    shown, prompts = pictures(2, SIZE), ["red apple", "green tiger , apple"]
    value = HpsV2().measure(job, Drawn(shown, Plan(prompts, range(2)))).values["HPSv2"]
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    x = ((shown / 255 - mean) / std).permute(0, 3, 1, 2)
    ids = [[10, 5, 7, 11], [10, 6, 8, 9, 7, 11]]
    with torch.no_grad():
        texts = torch.cat([original.text(torch.tensor([row])) for row in ids])
        expected = 100 * F.cosine_similarity(original.visual(x), texts).mean()
    assert value == pytest.approx(float(expected), abs=1e-3)


def test_foreign_weights_are_refused(original: OpenClip) -> None:
    with pytest.raises(LeanDiTError, match="not a weight of open_clip"):
        clip_from_open_clip({**original.state_dict(), "visual.trunk.stem.weight": torch.zeros(1)})
    lacking = {name: tensor for name, tensor in original.state_dict().items() if name != "visual.ln_pre.bias"}
    with pytest.raises(LeanDiTError, match="no CLIP of two"):
        clip_from_open_clip(lacking, 2, 2)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


def test_a_pickle_with_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hps.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    for name in ("hps.pt", "evil.pt"):
        with pytest.raises(LeanDiTError, match="cannot be read"):
            read_state(tmp_path / name)
    assert "run" not in capsys.readouterr().out
    torch.save({"state_dict": {"a": 3}}, tmp_path / "numbers.pt")
    with pytest.raises(LeanDiTError, match="no weights by name"):
        read_state(tmp_path / "numbers.pt")


def test_clip_keeps_what_it_is_made_of(original: OpenClip) -> None:
    clip = Clip(clip_from_open_clip(original.state_dict(), 2, 2), tokenizer(), {"weights_sha256": "x"})
    assert clip.about() == {"weights_sha256": "x", "resolution": SIZE, "resampling": "bicubic, antialiased"}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_damaged_weights_are_told_of(suffix: str, original: OpenClip, tmp_path: Path) -> None:
    path = tmp_path / f"hps.{suffix}"
    torch.save({"state_dict": {3: torch.zeros(2)}}, tmp_path / "numbered.pt")
    with pytest.raises(LeanDiTError, match="no weights by name"):
        read_state(tmp_path / "numbered.pt")
    for content in (b"", b"\x80", b"\x80\x02c", b"\x80\x02.", b"\x80\x02a.", b"\x80\x02h\x05.", b"[]", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(LeanDiTError, match=r"cannot be read|no weights by name"):
            read_state(path)


@pytest.mark.parametrize(
    "name", ["token_embedding.weight", "visual.proj", "visual.transformer.resblocks.0.attn.in_proj_bias"]
)
def test_weights_of_other_shapes_are_refused(name: str, original: OpenClip) -> None:
    for foreign in (torch.tensor(1.0), torch.zeros(2), torch.zeros(2, 2, 2)):
        with pytest.raises(LeanDiTError, match="no CLIP of two"):
            clip_from_open_clip({**original.state_dict(), name: foreign}, 2, 2)
