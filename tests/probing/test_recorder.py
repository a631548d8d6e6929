"""The recorder against masks computed by hand, and a model left as it was found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leandit.diffusion import EulerConfig, GuidanceConfig, RectifiedFlowConfig, build_objective
from leandit.grid import Grid
from leandit.models import Conditioning, DiT
from leandit.moe import routers
from leandit.presets import run_config
from leandit.probing import ComputeRecorder, ComputeTrace
from leandit.run import SamplingConfig
from leandit.sampling import LoadedRun, draw


@pytest.fixture
def model() -> DiT:
    torch.manual_seed(0)
    model = (
        run_config("tiny", ["model.depth=3", "model.moe.every=2"])
        .model.complete(input_size=32, channels=3, num_classes=2)
        .build()
        .eval()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _, router in routers(model):
            router.threshold.value.fill_(0.05)
    return model


def inputs(seed: int) -> tuple[torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, 32, 32, generator=generator), Conditioning(torch.tensor([0, 1, -1]))


def test_experts_per_token_are_the_scores_that_reach_the_threshold(model: DiT) -> None:
    expected = []
    with ComputeRecorder(model, batch=2) as recorder, torch.no_grad():
        for seed, t in ((1, 0.75), (2, 0.25)):
            x, cond = inputs(seed)
            out = model(x, torch.full((3,), t), cond)
            (routing,) = out.routers
            reached = [
                [sum(score >= 0.05 for score in token) for token in sample] for sample in routing.scores[:2].tolist()
            ]
            expected.append([reached])
    trace = recorder.trace()
    assert trace.layers == ("blocks.1",)
    assert trace.times.tolist() == [0.75, 0.25]
    assert trace.experts.tolist() == expected
    assert 0 < trace.experts.mean() < 4


def test_recording_changes_nothing_and_leaves_no_hook(model: DiT) -> None:
    x, cond = inputs(3)
    before = model(x, torch.full((3,), 0.5), cond).prediction
    with ComputeRecorder(model, batch=3) as recorder:
        during = model(x, torch.full((3,), 0.5), cond).prediction
    after = model(x, torch.full((3,), 0.5), cond).prediction
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert len(recorder.trace().times) == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="boom"), ComputeRecorder(model, batch=3):
        raise RuntimeError("boom")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_under_guidance_the_conditional_half_is_kept(model: DiT) -> None:
    run = LoadedRun(run_config("tiny"), model, build_objective(RectifiedFlowConfig()), (), 0, Path())

    def experts(scale: float, labels: list[int]) -> torch.Tensor:
        settings = SamplingConfig(sampler=EulerConfig(steps=1), guidance=GuidanceConfig(scale=scale))
        with ComputeRecorder(model, batch=2) as recorder:
            draw(run, labels, [0, 1], settings)
        return recorder.trace().experts

    assert torch.equal(experts(4.0, [0, 1]), experts(1.0, [0, 1]))
    assert not torch.equal(experts(1.0, [0, 1]), experts(1.0, [-1, -1]))


def test_calls_at_the_same_time_are_averaged() -> None:
    experts = torch.tensor([4.0, 2.0, 0.0])[:, None, None, None] * torch.ones(3, 2, 1, 4)
    experts[:, 1] += 1
    times, means = ComputeTrace(experts, torch.tensor([0.5, 0.1, 0.5]), ("a", "b"), Grid(2, 2)).by_time()
    assert times.tolist() == pytest.approx([0.1, 0.5])
    assert means.tolist() == [[2.0, 3.0], [2.0, 3.0]]
