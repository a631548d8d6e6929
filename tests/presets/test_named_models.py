"""Every named model against the figures of its paper, typed anew."""

from __future__ import annotations

from functools import cache

import pytest

from leandit.errors import LeanDiTError
from leandit.models import MaskingConfig, PixArtConfig
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
    0.977: ["2in32", "4in64", "8in128"],
    0.978: ["1in16"],
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


# DiT (arXiv 2212.09748), Table 4 (forward GFLOPs as multiply-adds, 32 x 32 latents): 6.06, 23.01, 80.71, 118.64.
@pytest.mark.parametrize(
    ("name", "gigaflops"), [("DiT-S/2", 6.06), ("DiT-B/2", 23.01), ("DiT-L/2", 80.71), ("DiT-XL/2", 118.64)]
)
def test_flops_are_twice_the_multiply_adds_that_dit_reports(name: str, gigaflops: float) -> None:
    assert card(name).flops == pytest.approx(2e9 * gigaflops, rel=0.02)


def test_smaller_patches_cost_more() -> None:
    for size in ("S", "B", "M", "L", "XL"):
        assert card(f"DiT-{size}/2").flops > 3 * card(f"DiT-{size}/4").flops > 9 * card(f"DiT-{size}/8").flops


# DiT-Air, Table 1: weights of N layers of width d, in d².
TABLE_1 = {
    "PixArt-alpha/{}": lambda n: 6 + 16 * n,
    "MMDiT/{}": lambda n: 36 * n,
    "MMDiT/{}-shared-AdaLN": lambda n: 12 + 24 * n,
    "DiT-Air/{}": lambda n: 12 + 12 * n,
    "DiT-Air/{}-Lite": lambda n: 16 + 8 * n,
    "DiT-Air/{}-Lite-full": lambda n: 24,
}
LAYERS = {"S": 12, "B": 18, "L": 24, "XL": 30, "XXL": 38}


@pytest.mark.parametrize("size", LAYERS)
@pytest.mark.parametrize("name", TABLE_1)
def test_dit_airs_formulas_are_exact(name: str, size: str) -> None:
    layers = LAYERS[size]
    assert card(name.format(size)).blocks == TABLE_1[name](layers) * (64 * layers) ** 2


@pytest.mark.parametrize(
    ("larger", "smaller", "millions"),
    [
        ("DiT-Air/B", "DiT-Air/B-Lite", 91),
        ("DiT-Air/B-Lite", "DiT-Air/B-Lite-full", 181),
        ("MMDiT/B", "MMDiT/B-shared-AdaLN", 271),
    ],
)
def test_differences_between_printed_models(larger: str, smaller: str, millions: int) -> None:
    assert card(larger).total - card(smaller).total == pytest.approx(millions * 1e6, abs=1e6)


# Printed totals and activated parameters, billions. DiT-Air prints totals of dense models only.
TEXT_FIGURES = {
    "DiT-Air/B": (0.321, 0.321),
    "DiT-Air/B-Lite": (0.230, 0.230),
    "DiT-Air/B-Lite-full": (0.049, 0.049),
    "MMDiT/B": (0.902, 0.902),
    "MMDiT/B-shared-AdaLN": (0.631, 0.631),
    "DiT-Air/XXL": (2.8, 2.8),
    "DENSE-XL": (1.47, 1.47),
    "DENSE-XXL": (2.35, 2.35),
    "DENSE-3XL": (4.50, 4.50),
    "DENSE-M": (8.03, 8.03),
    "EC-DiT-XL-8E": (2.51, 1.62),
    "EC-DiT-XL-16E": (3.70, 1.62),
    "EC-DiT-XL-32E": (6.08, 1.62),
    "EC-DiT-XXL-8E": (4.87, 2.71),
    "EC-DiT-XXL-16E": (7.73, 2.71),
    "EC-DiT-XXL-32E": (13.47, 2.71),
    "EC-DiT-3XL-8E": (10.74, 5.18),
    "EC-DiT-3XL-16E": (17.87, 5.18),
    "EC-DiT-3XL-32E": (32.15, 5.18),
    "EC-DiT-M-64E": (97.21, 8.27),
}


# Largest residuals, in percent, of totals and of activated parameters. The paper's 5.18B for 3XL is a misprint.
BOUNDS = {"DENSE": (0.91, 0.91), "EC": (0.42, 0.71), "DiT": (0.61, 0.61), "MMDiT": (0.11, 0.11)}
MISPRINTED = ["EC-DiT-3XL-8E", "EC-DiT-3XL-16E", "EC-DiT-3XL-32E"]


@pytest.mark.parametrize("name", TEXT_FIGURES)
def test_text_models_are_within_these_bounds(name: str) -> None:
    counted = card(name)
    total, activated = (1e9 * figure for figure in TEXT_FIGURES[name])
    assert (counted.paper_total, counted.paper_activated) == (pytest.approx(total), pytest.approx(activated))
    expected = 100 * (counted.total / total - 1), 100 * (counted.activated / activated - 1)
    assert (counted.residual_total, counted.residual_activated) == pytest.approx(expected)
    bounds = BOUNDS[name.partition("-")[0].partition("/")[0]]
    assert abs(expected[0]) <= bounds[0]
    if name in MISPRINTED:
        assert expected[1] > 4
    else:
        assert abs(expected[1]) <= bounds[1]


def test_all_fourteen_totals_of_ec_dit_are_compared() -> None:
    """Table 1: four dense models, eight sparse ones of three sizes, and EC-DiT-M; one constant for all of them."""
    assert len([name for name in TEXT_FIGURES if name.startswith(("DENSE-", "EC-DiT-"))]) == 14
    residuals = [card(name).residual_total for name in TEXT_FIGURES if name.startswith(("DENSE-", "EC-DiT-"))]
    assert max(map(abs, residuals)) < 0.91  # type: ignore[arg-type]
    assert min(residuals) < 0 < max(residuals)  # type: ignore[type-var]


def test_race_dit_is_within_a_unit_of_the_last_printed_digit() -> None:
    """But for Table 5's 1-in-16, which prints 0.978 for experts of the size that the others print as 0.977."""
    far = []
    for name, model in MODELS.items():
        if name.startswith("RaceDiT-"):
            assert model.paper_total is not None
            residual = card(name).residual_total
            assert residual == pytest.approx(100 * (card(name).total / model.paper_total - 1))
            assert abs(residual) < 0.25
            far += [name] if abs(card(name).total - model.paper_total) > 1e6 else []
    assert far == ["RaceDiT-B/2-1in16"]


# DiT-MoE, Table 1: total, activated, the unit of their last digits, and GFLOPs, counted as multiply-adds without the
# two products of attention. Some figures are rounded, some cut: one unit of the last digit is what they tell.
DIT_MOE = {
    "DiT-MoE-S/2": (199e6, 71e6, 1e6, 15.43),
    "DiT-MoE-B/2": (795e6, 286e6, 1e6, 61.68),
    "DiT-MoE-L/2": (2.8e9, 1.0e9, 1e8, 219.26),
    "DiT-MoE-XL/2": (4.1e9, 1.5e9, 1e8, 323.74),
}


@pytest.mark.parametrize("name", DIT_MOE)
def test_dit_moe(name: str) -> None:
    total, activated, unit, gigaflops = DIT_MOE[name]
    counted = card(name)
    assert counted.total == pytest.approx(total, abs=unit)
    assert counted.activated == pytest.approx(activated, abs=unit)
    assert (counted.paper_total, counted.paper_activated) == (total, activated)
    config = model_config(name)
    attention = 4 * 256**2 * config.dim * config.depth
    assert counted.flops - attention == pytest.approx(2e9 * gigaflops, rel=0.002)
    assert config.moe is not None
    assert (config.moe.k, config.moe.num_experts, config.moe.num_shared_experts) == (2, 8, 2)


def test_totals_are_the_sum_of_their_parts() -> None:
    for name in MODELS:
        counted = card(name)
        besides = [part for part in (counted.embedders, counted.not_itemised) if part is not None]
        assert len(besides) == (2 if model_config(name).conditions_on_text or name in DIT_MOE else 0)
        assert counted.total == counted.blocks + sum(besides)


def test_what_papers_do_not_itemise_is_one_number_for_each_family() -> None:
    families = {
        **{"PixArt-alpha/": 0, "DiT-Air/": 8e6, "MMDiT/": 32e6, "DiT-MoE-": 0},
        **{"EC-DiT-": 718e6, "DENSE-": 718e6, "GShard-": 718e6},
    }
    for family, millions in families.items():
        found = {card(name).not_itemised for name in MODELS if name.startswith(family)}
        assert found == {millions}


# EC-DiT: layers, width, experts, and the total that is left of its Table 1 without the experts, in billions.
EC_DIT = {
    "XL": (28, 1152, (8, 16, 32), 1.471),
    "XXL": (38, 1536, (8, 16, 32), 2.355),
    "3XL": (42, 2304, (8, 16, 32), 4.497),
    "M": (38, 3072, (64,), 6.840),
}


@pytest.mark.parametrize("size", EC_DIT)
def test_ec_dit_is_a_dense_model_with_experts_in_every_second_layer(size: str) -> None:
    layers, dim, counts, dense = EC_DIT[size]
    feed_forward, expert_layers = 8 * dim**2, layers // 2
    for experts in counts:
        counted = card(f"EC-DiT-{size}-{experts}E")
        without = counted.total - expert_layers * ((experts - 1) * feed_forward + experts * dim)
        assert without == pytest.approx(dense * 1e9, rel=0.01)
        assert counted.activated == without + expert_layers * (feed_forward + experts * dim)
        if size != "M":  # the dense M is deeper
            assert card(f"DENSE-{size}").total == without


@pytest.mark.parametrize("size", EC_DIT)
def test_gshard_has_ec_dits_sizes_and_routes_by_token_choice_with_a_capacity(size: str) -> None:
    for experts in EC_DIT[size][2]:
        name = f"{size}-{experts}E"
        assert card(f"GShard-{name}").total == card(f"EC-DiT-{name}").total
        assert card(f"GShard-{name}").activated == card(f"EC-DiT-{name}").activated
        ours, theirs = (model_config(f"{family}-{name}") for family in ("GShard", "EC-DiT"))
        assert ours.moe is not None
        assert ours.replace(moe=theirs.moe) == theirs
        assert (ours.moe.strategy, ours.moe.k, ours.moe.renormalize) == ("token_choice", 2, True)
        assert (ours.moe.capacity_factor, ours.moe.inference_capacity_factor) == (2.0, 2.0)
        assert (ours.moe.group_tokens, ours.moe.inference_group_tokens) == (1024, None)


def test_what_does_not_add_up_has_a_note() -> None:
    noted = {name for name, model in MODELS.items() if model.note is not None}
    assert noted == {"DiT-Air/L-Lite", "RaceDiT-B/2-1in16", *MISPRINTED}
    for name in MISPRINTED:
        assert card(name).activated == pytest.approx(5.389e9, rel=0.01)  # by the rule, where 5.18 is printed
    assert MODELS["DiT-Air/L-Lite"].paper_total == 0.7e9
    assert card("DiT-Air/L-Lite").total < 0.55e9


def test_every_figure_of_the_papers_is_tested_here() -> None:
    race = {f"RaceDiT-B/2-{routing}" for names in TABLE_5.values() for routing in names}
    printed = {name for name, model in MODELS.items() if model.paper_total or model.paper_activated}
    assert printed == {*TABLE_4, *race, *DIT_MOE, *TEXT_FIGURES, "DiT-Air/L-Lite"}


def test_all_names_build_for_256_pixels() -> None:
    for name, model in MODELS.items():
        assert name == model.name
        text = model.config.conditions_on_text
        assert (model.config.input_size, model.config.channels) == (32, 8 if text else 4)
        ec_dit = name.startswith(("DENSE-", "EC-DiT-", "GShard-"))
        assert model.config.num_classes == (0 if text else 1000)
        assert model.config.text_dim == (1536 if ec_dit else 1024 if text else None)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("DENSE-", "EC-DiT-", "GShard-"))])
def test_ec_dit_has_the_printed_forms(name: str) -> None:
    """Equation 2: keys and values d_text x d. Equations 4 and 5: the router sees x'. Section 3.1: f_c = 2, one FFN."""
    config = model_config(name)
    assert isinstance(config, PixArtConfig)
    assert (config.cross_kv_heads, config.adaln, config.adaln_vectors) == (config.heads, "per_layer", 3)
    assert config.kv_heads == (12 if "-M" in name else 6)
    assert config.masking == MaskingConfig()
    assert (config.project_text, config.router_norm) == (False, False)
    if config.moe is not None:
        assert (config.moe.router_input, config.moe.k, config.moe.every, config.moe.hidden_split) == ("plain", 2, 2, 1)
        assert (config.moe.group_tokens, config.moe.inference_group_tokens) == (1024, None)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(LeanDiTError, match="Did you mean 'RaceDiT-XL/2-4in32'"):
        model_config("RaceDiT-XL/2-4in23")
