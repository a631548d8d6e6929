"""FLOPs against torch's own counter, parameters against a count by hand, and large models that cost no memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from leandit.models import Conditioning, DiTConfig, count_parameters, forward_flops, training_memory
from leandit.moe import MoEConfig
from leandit.ops import grouped_gemm


def config(**changes: Any) -> DiTConfig:
    small = {"dim": 48, "depth": 3, "heads": 3, "patch_size": 2, "input_size": 16, "channels": 4, "num_classes": 5}
    return DiTConfig(**{**small, "attention_impl": "math", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learned_sigma": True, "mlp_ratio": 3.0, "qk_norm": True},
        {"moe": MoEConfig(k=2, num_experts=6, per_layer_regularisation=False)},
        {
            "moe": MoEConfig(
                k=3, num_experts=6, hidden_split=2, every=2, shared_expert=True, per_layer_regularisation=False
            )
        },
        {"moe": MoEConfig(k=2, num_experts=6, router="linear", per_layer_regularisation=False)},
    ],
    ids=["dense", "learned sigma", "race", "every second", "linear router"],
)
def test_flops_equal_torchs_count(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In training the budget is exact; blocks of one row leave out the zero rows that experts are padded with."""
    monkeypatch.setattr(grouped_gemm, "BLOCK", 1)
    settings = config(**changes)
    model = settings.build().train()
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.randn(2, 4, 16, 16), torch.rand(2), Conditioning(torch.tensor([0, 1])))
    assert forward_flops(settings) == pytest.approx(counter.get_total_flops() / 2, rel=1e-3)


def test_flops_need_to_know_the_input() -> None:
    with pytest.raises(ValueError, match=r"see DiTConfig.complete"):
        forward_flops(DiTConfig())


def test_parameters_are_the_matrices_of_the_blocks() -> None:
    """18 d² per dense block; with experts 10 d² + E 8 d²/s, and a router of d² + d E in its place."""
    d, blocks = 48, 3
    dense = count_parameters(config(qk_norm=True))
    assert (dense.total, dense.activated, dense.router) == (18 * d * d * blocks, 18 * d * d * blocks, 0)
    race = count_parameters(config(moe=MoEConfig(k=2, num_experts=6)))
    router = d * d + 6 * d
    assert race.router == blocks * router
    assert race.total == blocks * (10 * d * d + 6 * 8 * d * d // 2 + router)
    assert race.activated == blocks * (18 * d * d + router)


def kept_for_backward(settings: DiTConfig, micro_batch: int) -> int:
    """Bytes that autograd stores in one forward pass, weights left out."""
    model = settings.build().train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x, t = torch.randn(micro_batch, 4, 16, 16), torch.rand(micro_batch)
        model(x, t, Conditioning(torch.zeros(micro_batch, dtype=torch.long)))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("moe", [None, MoEConfig(k=2, num_experts=4)], ids=["dense", "experts"])
def test_training_memory_is_near_what_autograd_keeps(moe: MoEConfig | None) -> None:
    settings = config(dim=96, attention_impl="sdpa", moe=moe)
    estimate = training_memory(0, settings, 8, bf16=False, activation_checkpointing=False)
    assert estimate == pytest.approx(kept_for_backward(settings, 8), rel=0.4)


def test_training_memory_of_weights_and_checkpointing() -> None:
    plain, bf16 = (
        training_memory(1000, config(), 0, bf16=low, activation_checkpointing=False) for low in (False, True)
    )
    assert (plain, bf16) == (20_000, 22_000)
    whole, part = (training_memory(0, config(), 8, bf16=False, activation_checkpointing=on) for on in (False, True))
    assert whole / 3 < part < whole / 2


_BUILD_XL = """
import json, resource, time
import torch
from leandit import api
start = time.perf_counter()
with torch.device("meta"):
    model = api.create_model("RaceDiT-XL/2-4in32")
seconds = time.perf_counter() - start
matrices = [p.numel() for name, p in model.blocks.named_parameters()
            if (name.endswith(".weight") or ".experts.w" in name) and "target_head" not in name]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "parameters": sum(matrices)}))
"""


def test_the_largest_model_builds_on_the_meta_device_in_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", _BUILD_XL], capture_output=True, text=True, check=True, timeout=120)
    measured = json.loads(done.stdout)
    print(f"RaceDiT-XL/2-4in32 on meta: {measured['seconds']:.2f} s, {measured['peak'] / 2**20:.0f} MiB at most")
    assert measured["peak"] < 1e9
    assert measured["parameters"] == pytest.approx(2.788e9, rel=0.005)
