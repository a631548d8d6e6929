"""Every named model against the figures of the Expert Race paper, typed anew from its Tables 4 and 5."""

from __future__ import annotations

from functools import cache

import pytest

from leandit.errors import LeanDiTError
from leandit.presets import MODELS, ModelCard, model_card, model_config

# Table 4, billions: total, activated (routers included).
TABLE_4 = {
    "DiT-B/2": (0.127, 0.127),
    "DiT-M/2": (0.265, 0.265),
    "DiT-L/2": (0.453, 0.453),
    "DiT-XL/2": (0.669, 0.669),
    "RaceDiT-B/2-4in32": (0.531, 0.135),
    "RaceDiT-M/2-4in32": (1.106, 0.281),
    "RaceDiT-L/2-4in32": (1.889, 0.479),
    "RaceDiT-XL/2-4in32": (2.788, 0.707),
}
# Table 5, DiT-B, billions in total (routers left out).
TABLE_5 = {
    0.297: ["1in4", "2in8", "4in16", "8in32"],
    0.524: ["1in8", "2in16", "8in64"],
    0.977: ["1in16", "2in32", "4in64", "8in128"],
}


@cache
def card(name: str) -> ModelCard:
    return model_card(MODELS[name])


@pytest.mark.parametrize(("name", "figures"), TABLE_4.items(), ids=TABLE_4)
def test_table_4(name: str, figures: tuple[float, float]) -> None:
    total, activated = figures
    counted = card(name)
    assert counted.total == pytest.approx(total * 1e9, rel=0.005)
    assert counted.activated == pytest.approx(activated * 1e9, rel=0.005)
    assert counted.paper_total == pytest.approx(total * 1e9)
    assert counted.paper_activated == pytest.approx(activated * 1e9)
    assert counted.counts_routers


@pytest.mark.parametrize(("total", "routing"), [(total, r) for total, names in TABLE_5.items() for r in names])
def test_table_5(total: float, routing: str) -> None:
    counted = card(f"RaceDiT-B/2-{routing}")
    assert counted.total == pytest.approx(total * 1e9, rel=0.005)
    assert counted.activated == pytest.approx(0.1274e9, rel=0.005)  # the dense model's
    assert counted.paper_total == pytest.approx(total * 1e9)
    assert not counted.counts_routers
    k, experts = map(int, routing.split("in"))
    config = model_config(f"RaceDiT-B/2-{routing}")
    assert config.moe is not None
    assert (config.moe.k, config.moe.num_experts) == (k, experts)


def test_every_figure_of_the_paper_is_tested_here() -> None:
    here = {*TABLE_4, *(f"RaceDiT-B/2-{routing}" for names in TABLE_5.values() for routing in names)}
    assert {name for name, model in MODELS.items() if model.paper_total is not None} == here


# DiT (arXiv 2212.09748), Table 4 (forward GFLOPs as multiply-adds, 32 x 32 latents): 6.06, 23.01, 80.71, 118.64.
@pytest.mark.parametrize(
    ("name", "gigaflops"), [("DiT-S/2", 6.06), ("DiT-B/2", 23.01), ("DiT-L/2", 80.71), ("DiT-XL/2", 118.64)]
)
def test_flops_are_twice_the_multiply_adds_that_dit_reports(name: str, gigaflops: float) -> None:
    assert card(name).flops == pytest.approx(2e9 * gigaflops, rel=0.02)


def test_smaller_patches_cost_more() -> None:
    for size in ("S", "B", "M", "L", "XL"):
        assert card(f"DiT-{size}/2").flops > 3 * card(f"DiT-{size}/4").flops > 9 * card(f"DiT-{size}/8").flops


def test_all_names_build_for_imagenet_at_256_pixels() -> None:
    for name, model in MODELS.items():
        assert name == model.name
        assert (model.config.input_size, model.config.channels, model.config.num_classes) == (32, 4, 1000)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(LeanDiTError, match="Did you mean 'RaceDiT-XL/2-4in32'"):
        model_config("RaceDiT-XL/2-4in23")
