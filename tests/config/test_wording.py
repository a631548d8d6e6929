"""A wrong value of each kind for each setting, in all kinds of its table: a message of ours that names the key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from fuzz_settings import cases, outcome
from leandit.config import Config, validate
from leandit.config.describe import tag_of
from leandit.config.fields import ConfigField, fields_of
from leandit.config.schema import type_text
from leandit.config.wording import counted
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig

Nested = list[tuple[str, type[BaseModel], bool]]
# How pydantic speaks, and how Python does.
FOREIGN = re.compile(
    r"Input should|should (be|have|match)|valid (string|integer|number|boolean|tuple|dict|list)|after validation"
    r"|pydantic|unable to|[Tt]uple|dictionary|parse|String|Traceback|None|instance of|_type|\{\}"
)
# What a message repeats of the wrong value itself.
GIVEN = re.compile(r"\(given: .*\)|'[^']*'|\[.*\]|\{.*\}")
WRONG: dict[str, Any] = {
    "true": True,
    "text": "qwxyz",
    "empty text": "",
    "half a character": "\ud800",
    "digits": "5",
    "below": -(10**9),
    "above": 10**15,
    "fraction": 1.5,
    "far too long": 10**4000,
    "infinite": float("inf"),
    "no number": float("nan"),
    "tiny": 1e-300,
    "huge": 1e300,
    "list": [],
    "list of lists": [[[]]],
    "long list": list(range(200)),
    "table": {},
    "table of a table": {"a": {"b": 1}},
    "foreign": object(),
    "null": None,
}
# Words of a setting's type to wrong values that it must refuse, whatever its bounds.
REFUSED = {
    "integer": ("true", "text", "digits", "fraction", "far too long", "infinite", "no number", "list of lists"),
    "number": ("true", "text", "digits", "far too long", "infinite", "no number", "tiny", "huge", "list of lists"),
    "true or false": ("text", "digits", "below", "fraction", "list", "table", "null"),
    "text": ("true", "half a character", "below", "fraction", "list", "table", "foreign"),
    "list": ("true", "text", "below", "list of lists", "foreign"),
    "table": ("true", "text", "below", "list of lists", "foreign"),
}


def every_field() -> list[tuple[Nested, ConfigField]]:
    """All settings of a run, each with the kinds of the tables that it is in."""

    def below(kind: type[BaseModel], node: ConfigField | None, above: Nested) -> list[tuple[Nested, ConfigField]]:
        found = []
        for field in fields_of(kind, node):
            found.append((above, field))
            for inner in field.kinds:
                found += below(inner, field, [*above, (field.name, inner, field.prefix != field.key)])
        return found

    return below(RunConfig, None, [])


def tree_with(above: Nested, name: str, value: Any) -> dict[str, Any]:
    """A configuration that states the kinds of the tables around one setting, and nothing else."""
    tree: dict[str, Any] = {}
    node = tree
    for key, kind, listed in above:
        inner: dict[str, Any] = {} if (tag := tag_of(kind)) is None else {"type": tag}
        node[key] = [inner] if listed else inner
        node = inner
    node[name] = value
    return tree


def lines_of(tree: dict[str, Any]) -> list[str]:
    try:
        validate(RunConfig, tree, "here")
    except LeanDiTError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def test_every_setting_answers_every_wrong_value_in_our_words() -> None:
    fields = every_field()
    assert len(fields) > 300
    for above, field in fields:
        key = field.key.replace(".N", ".0")
        text = type_text(field)
        for name, value in WRONG.items():
            lines = lines_of(tree_with(above, field.name, value))
            own = [line for line in lines if line.startswith((f"{key}:", f"{key}."))]
            for line in own:
                assert not FOREIGN.search(GIVEN.sub("", line)), line
                assert len(line) < 900
                assert line.isprintable(), line
            refused = [word for word in REFUSED if text.startswith(word) and name in REFUSED[word]]
            if field.name == "type" and value is not None:
                assert lines
            elif refused and not (" or " in text and "size" in field.name) and field.name != "position_grid":
                assert own, (key, field.owner, name, text)


def test_a_bound_and_a_length_are_named() -> None:
    config = run_config("tiny").model_dump(mode="json")
    for key, value, line in [
        ("steps", 0, "train.steps: must be at least 1 (given: 0)"),
        ("steps", True, "train.steps: must be a whole number (given: true)"),
        ("steps", "5", "train.steps: must be a whole number (given: '5')"),
        ("ema_decay", 1, "train.ema_decay: must be below 1 (given: 1)"),
        ("clip", 0, "train.clip: must be above 0 (given: 0)"),
        ("clip", 1e-300, "train.clip: must be 0, or 1.2e-38 to 3.4e+38 in size: it is a float32 (given: 1e-300)"),
        ("precision", "fp16", "train.precision: 'fp16' is not one of auto, fp32, bf16. Did you mean 'bf16'?"),
        ("tensorboard", 1, "train.tensorboard: must be true or false (given: 1)"),
    ]:
        assert lines_of({**config, "train": {**config["train"], key: value}}) == [line]
    assert counted(1, "entry") == "1 entry"
    assert counted(2, "entry") == "2 entries"
    assert counted(2, "character") == "2 characters"


def test_a_long_list_of_wrong_values_is_cut() -> None:
    lines = lines_of({**run_config("tiny").model_dump(mode="json"), "sampling": {"prompts": list(range(5000))}})
    assert len(lines) == 21
    assert lines[0] == "sampling.prompts.0: must be a text (given: 0)"
    assert lines[-1] == "and 4980 more"


def test_an_error_inside_a_list_is_not_an_error_of_its_length() -> None:
    text = {"encoders": [{"type": "clip", "path": "x", "max_tokens": 1}]}
    config = run_config("emoji-dit-air").model_dump(mode="json")
    assert lines_of({**config, "text": text}) == ["text.encoders.0.max_tokens: must be at least 2 (given: 1)"]


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("name=123", "name", "123"),
        ("name=007", "name", "007"),
        ("name=1e5", "name", "1e5"),
        ("name=true", "name", "true"),
        ("name=null", "name", "null"),
        ('name="7"', "name", "7"),
    ],
)
def test_digits_for_a_text_are_text(override: str, key: str, expected: str) -> None:
    assert getattr(run_config("tiny", [override]), key) == expected


def test_digits_for_a_text_that_may_be_null_are_text_and_null_is_null() -> None:
    assert run_config("emoji-dit-air", ["text.cache=12"]).text.cache == "12"  # type: ignore[union-attr]
    assert run_config("emoji-dit-air", ["text.cache=null"]).text.cache is None  # type: ignore[union-attr]
    assert run_config("tiny", ["start.path=0815"]).start.path == "0815"  # type: ignore[union-attr]


def test_a_whole_float_is_an_integer() -> None:
    assert run_config("tiny", ["train.steps=1e3"]).train.steps == 1000
    with pytest.raises(LeanDiTError, match=r"train.steps: must be a whole number \(given: 2.5\)"):
        run_config("tiny", ["train.steps=2.5"])


def test_python_is_as_strict_as_a_file() -> None:
    class Plain(Config):
        number: int = 0
        share: float = 0.0
        flag: bool = False

    for wrong in ({"number": True}, {"number": "1"}, {"share": True}, {"share": "1"}, {"flag": 1}, {"flag": "yes"}):
        with pytest.raises(LeanDiTError):
            validate(Plain, wrong, "here")
    assert Plain(share=1).share == 1.0


def test_sizes_that_would_hang_are_errors_at_once() -> None:
    for override in (
        "model.depth=1000000000",
        "model.dim=4000000000",
        "model.heads=1000000000",
        "model.moe.num_experts=1000000000",
        "model.moe.num_shared_experts=1000000000",
        "model.mlp_ratio=1e9",
        "model.num_classes=1000000000000",
        "train.batch_size=1000000000000",
    ):
        with pytest.raises(LeanDiTError, match="at most"):
            run_config("tiny", [override])
    with pytest.raises(LeanDiTError, match="at most 1024"):
        run_config("emoji-dit-air", ["text.encoders.0.layers=[1000000000]"])
    with pytest.raises(LeanDiTError, match="at most 64 entries"):
        run_config("emoji-dit-air", [f"text.encoders.0.layers={[0] * 100_000}"])


def test_random_settings_end_in_a_dry_run_or_in_a_message() -> None:
    counts = {"accepted": 0, "refused": 0}
    for case in cases(200, seed=1, presets=("tiny",)):
        kind, message = outcome(case)
        assert kind in counts, f"{case}\n{message}"
        assert not FOREIGN.search(GIVEN.sub("", message)), message
        counts[kind] += 1
    assert min(counts.values()) > 10
