"""For every setting that a run can have: it may change on resuming, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

from leandit.config import Config
from leandit.config.fields import node_kinds
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.run.resolve import resolve
from leandit.run.resume import identity_changes

# All others are part of what a run is. The rate of the configs here is constant, so their steps are not.
MAY_CHANGE = [
    *(
        "train.steps",
        "train.log_every",
        "train.checkpoint_every",
        "train.keep",
        "train.keep_every",
        "train.sample_every",
        "train.validate_every",
        "train.tensorboard",
    ),
    *("train.device", "train.compile", "train.activation_checkpointing", "model.attention_impl", "model.moe.impl"),
    *("data.num_threads", "data.validation.*", "data.source.max_pixels", "data.source.cached_row_groups"),
    *("data.source.path", "data.source.paths", "data.source.images", "data.source.labels"),
    *("text.encoders.0.path", "text.cache", "text.memory_mib", "text.batch_size", "text.max_caption_chars"),
    "sampling.*",
]

Put = Callable[[Any], RunConfig]


def leaves(kind: type[Config], put: Put, prefix: str = "") -> Iterator[tuple[str, RunConfig, RunConfig]]:
    """Yield the key of each leaf, in all kinds that nodes have, and two configs that differ in it alone."""
    for name, info in kind.model_fields.items():
        key = f"{prefix}{name}"
        kinds, _ = node_kinds(info)
        listed = "tuple" in str(info.annotation)
        for node in kinds:

            def within(value: Any, name: str = name, listed: bool = listed) -> RunConfig:
                return put(kind.model_construct(**{name: (value,) if listed else value}))

            yield from leaves(node, within, f"{key}.0." if listed else f"{key}.")  # type: ignore[arg-type]
        if not kinds:
            yield (key, *(put(kind.model_construct(**{name: value})) for value in ("old", "new")))


LEAVES = list(leaves(RunConfig, lambda config: config))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_every_setting_may_change_or_is_refused_by_name() -> None:
    assert len(LEAVES) > 250
    wrong = []
    for key, old, new in LEAVES:
        refused = [] if any(fnmatch(key, pattern) for pattern in MAY_CHANGE) else [(key, "old", "new")]
        if identity_changes(old, new) != refused:
            wrong.append(key)
    assert wrong == []


def test_every_pattern_is_in_use() -> None:
    keys = {key for key, _, _ in LEAVES}
    assert [pattern for pattern in MAY_CHANGE if not any(fnmatch(key, pattern) for key in keys)] == []


def changed(*overrides: str, base: tuple[str, ...] = ()) -> list[str]:
    before = run_config("tiny", list(base))
    return [key for key, _, _ in identity_changes(before, run_config("tiny", [*base, *overrides]))]


IDX = ("data.source.type=idx", "data.source.images=a", "data.source.labels=b")


def test_validation_comes_and_goes() -> None:
    validation = ('data.validation={"type": "emoji", "split": "held_out"}', "train.validate_every=5")
    assert changed(*validation) == []
    assert changed("data.validation=null", base=validation) == []


def test_a_path_may_move_and_not_appear_or_become_another_kind() -> None:
    assert changed("data.source.images=c", "data.source.labels=d", base=IDX) == []
    assert changed("data.source.labels=null", base=IDX) == ["data.source.labels"]
    folder = ("data.source.type=class_folder", "data.source.path=a")
    assert "data.source.type" in changed("data.source.type=latents", "data.source.path=a", base=folder)
    # It is read once, at the start: where that run is now is of no use.
    assert changed("start.path=b", base=("start.path=a",)) == ["start.path"]


def test_more_steps_only_if_the_rate_does_not_depend_on_them() -> None:
    assert changed("train.steps=40") == []
    assert changed("train.steps=40", base=("schedule.decay=linear",)) == ["train.steps"]
    assert changed("train.steps=40", "schedule.decay=linear") == ["schedule.decay", "train.steps"]


@pytest.mark.parametrize(("then", "now"), [("bf16", False), ("fp32", True)])
def test_a_run_keeps_the_precision_that_its_first_machine_chose(
    monkeypatch: pytest.MonkeyPatch, then: str, now: bool
) -> None:
    monkeypatch.setattr("leandit.run.resolve.fast_bf16", lambda device: now)
    open_ = run_config("tiny", ["train.precision=auto"])
    earlier = run_config("tiny", [f"train.precision={then}", "train.device=cuda:3", "model.num_classes=2"])
    resumed = resolve(open_, None, earlier=earlier)
    assert resumed.train.precision == then
    assert resumed.train.device in ("cpu", "cuda")
    assert resolve(open_, None).train.precision == ("bf16" if now else "fp32")
    # Asked for by name, it is what was asked for, and another run.
    asked = resolve(run_config("tiny", ["train.precision=fp32"]), None, earlier=earlier)
    assert asked.train.precision == "fp32"
