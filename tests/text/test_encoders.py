"""Every kind of encoder against the model called by hand on the tokens of one text, without padding."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from leandit.text import EncoderConfig, TransformerEncoder, pad_rows

TEXTS = ["red apple , noto emoji", "", "tiger", "green apple tiger red , fluent emoji"]
TOKENS = {
    "sentence": [[1, 4, 6, 11, 8, 10, 2], [1, 2], [1, 7, 2], [1, 5, 6, 7, 4, 11, 9, 10, 2]],
    "clip": [[1, 4, 6, 11, 8, 10, 2], [1, 2], [1, 7, 2], [1, 5, 6, 7, 4, 11, 9, 10, 2]],
    "t5": [[4, 6, 11, 8, 10, 2], [2], [7, 2], [5, 6, 7, 4, 11, 9, 10, 2]],
    # This tokenizer adds nothing, so the empty text is given the start token.
    "llm": [[4, 6, 11, 8, 10], [1], [7], [5, 6, 7, 4, 11, 9, 10]],
}
KINDS = tuple(TOKENS)


def config(kind: str, folder: Path, **options: Any) -> Any:
    return TypeAdapter(EncoderConfig).validate_python({"type": kind, "path": str(folder), "max_tokens": 12, **options})


def encoder(kind: str, folder: Path, batch_size: int = 1, **options: Any) -> TransformerEncoder:
    return TransformerEncoder(config(kind, folder, **options), batch_size)


def plain_model(kind: str, folder: Path) -> Any:
    import transformers as hf

    classes = {"sentence": hf.BertModel, "clip": hf.CLIPTextModel, "t5": hf.T5EncoderModel, "llm": hf.LlamaModel}
    model = classes[kind].from_pretrained(folder).eval()
    # Earlier releases of transformers wrap CLIP's tower once more.
    return getattr(model, "text_model", model)


def states(kind: str, folder: Path, ids: list[int]) -> list[Tensor]:
    """Return the hidden states of one text, caught by hooks on the layers, and the model's output at the end."""
    model = plain_model(kind, folder)
    layers = {
        "sentence": lambda: model.encoder.layer,
        "clip": lambda: model.encoder.layers,
        "t5": lambda: model.encoder.block,
        "llm": lambda: model.layers,
    }[kind]()
    caught: list[Tensor] = []
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: caught.append((args or tuple(kwargs.values()))[0][0].clone()), with_kwargs=True
        )
    with torch.no_grad():
        output = model(torch.tensor([ids])).last_hidden_state[0]
    assert len(caught) == 3
    return [*caught, output]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_features_are_the_hidden_states_of_each_text_alone(
    kind: str, batch_size: int, folders: dict[str, Path]
) -> None:
    built = encoder(kind, folders[kind], batch_size, layers=(-1, 1, -3), pooled="last")
    assert (built.text_dim, built.pooled_dim) == (48, 16)
    for row, ids in zip(built.rows(TEXTS), TOKENS[kind], strict=True):
        expected = states(kind, folders[kind], ids)
        torch.testing.assert_close(
            row.tokens, torch.cat([expected[3], expected[1], expected[1]], -1), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(row.pooled, expected[3][-1], atol=1e-5, rtol=0)
        assert row.tokens.abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_mean_pooling_is_over_the_tokens_of_the_output(kind: str, folders: dict[str, Path]) -> None:
    built = encoder(kind, folders[kind], 4, layers=(0,), pooled="mean")
    for row, ids in zip(built.rows(TEXTS), TOKENS[kind], strict=True):
        expected = states(kind, folders[kind], ids)
        torch.testing.assert_close(row.pooled, sum(expected[3]) / len(ids), atol=1e-5, rtol=0)
        torch.testing.assert_close(row.tokens, expected[0], atol=1e-5, rtol=0)


def test_cls_pooling_is_the_first_token(folders: dict[str, Path]) -> None:
    (row,) = encoder("sentence", folders["sentence"], pooled="cls").rows(["tiger"])
    assert torch.equal(row.pooled, row.tokens[0])


def test_one_text_per_pass_does_not_see_its_neighbours_at_all(folders: dict[str, Path]) -> None:
    built = encoder("clip", folders["clip"])
    together, alone = built.rows(TEXTS), [built.rows([text])[0] for text in TEXTS]
    assert all(
        torch.equal(a.tokens, b.tokens) and torch.equal(a.pooled, b.pooled)
        for a, b in zip(together, alone, strict=True)
    )


def clip_by_hand(folder: Path, ids: list[int], causal: bool) -> Tensor:
    """CLIP's text tower, written out: pre-norm blocks, quick GELU, and a mask that is causal or not there."""
    model = plain_model("clip", folder)
    x = model.embeddings.token_embedding.weight[ids] + model.embeddings.position_embedding.weight[: len(ids)]
    for layer in model.encoder.layers:
        attention = layer.self_attn
        h = layer.layer_norm1(x)
        heads = [
            proj(h).view(len(ids), 2, 8).transpose(0, 1)
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        logits = heads[0] @ heads[1].transpose(1, 2) / 8**0.5
        if causal:
            logits = logits.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
        x = x + attention.out_proj((logits.softmax(-1) @ heads[2]).transpose(0, 1).reshape(len(ids), 16))
        h = layer.mlp.fc1(layer.layer_norm2(x))
        x = x + layer.mlp.fc2(h * torch.sigmoid(1.702 * h))
    return model.final_layer_norm(x).detach()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_clip_is_causal_or_bidirectional(bidirectional: bool, batch_size: int, folders: dict[str, Path]) -> None:
    rows = encoder("clip", folders["clip"], batch_size, bidirectional=bidirectional).rows(TEXTS)
    for row, ids in zip(rows, TOKENS["clip"], strict=True):
        torch.testing.assert_close(row.tokens, clip_by_hand(folders["clip"], ids, not bidirectional), atol=1e-5, rtol=0)
    assert not torch.allclose(
        rows[0].tokens[1], clip_by_hand(folders["clip"], TOKENS["clip"][0], bidirectional)[1], atol=1e-2
    )


def test_the_whole_clip_checkpoint_gives_its_text_tower(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers as hf

    text = hf.CLIPTextConfig.from_pretrained(folders["clip"]).to_dict()
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 8,
        "patch_size": 8,
    }
    whole = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision))
    whole.text_model.load_state_dict(plain_model("clip", folders["clip"]).state_dict())
    whole.save_pretrained(tmp_path)
    hf.AutoTokenizer.from_pretrained(folders["clip"]).save_pretrained(tmp_path)
    one, other = encoder("clip", folders["clip"]), encoder("clip", tmp_path)
    assert torch.equal(one.rows(TEXTS[:1])[0].tokens, other.rows(TEXTS[:1])[0].tokens)


def test_long_texts_are_cut_and_that_is_said_once(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    built = encoder("clip", folders["clip"], max_tokens=4)
    with caplog.at_level(logging.WARNING):
        rows = built.rows(["red apple", "red apple tiger", "green apple tiger"])
    assert [len(row.tokens) for row in rows] == [4, 4, 4]
    torch.testing.assert_close(
        rows[1].tokens, clip_by_hand(folders["clip"], [1, 4, 6, 2], causal=True), atol=1e-5, rtol=0
    )
    assert [record.message for record in caplog.records] == [
        "captions longer than max_tokens=4 are cut, for example 'red apple tiger'"
    ]


def test_frozen_unless_asked(folders: dict[str, Path]) -> None:
    for finetune in (False, True):
        built = encoder("clip", folders["clip"], bidirectional=True, pooled="mean", finetune=finetune)
        assert all(parameter.requires_grad == finetune for parameter in built.parameters())
        assert not built.train().model.training
        rows = built.rows(["tiger", "red apple"])
        assert all(row.tokens.requires_grad == row.pooled.requires_grad == finetune for row in rows)
    sum(row.pooled.square().sum() for row in rows).backward()
    assert all(parameter.grad is not None for parameter in built.model.parameters())
    with torch.no_grad():
        assert not built.rows(["tiger"])[0].tokens.requires_grad


def test_padding_and_rows_are_inverse() -> None:
    from leandit.text import TextRow

    rows = [TextRow(torch.randn(count, 3), torch.randn(2)) for count in (2, 5, 1)]
    features = pad_rows(rows)
    assert features.mask.tolist() == [[True] * n + [False] * (5 - n) for n in (2, 5, 1)]
    assert features.tokens[0, 2:].abs().sum() == 0
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(rows, features.rows(), strict=True))


def test_loading_and_encoding_touch_no_network(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was attempted")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for kind in KINDS:
        assert len(encoder(kind, folders[kind]).rows(["tiger"])) == 1
