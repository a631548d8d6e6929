"""Several captions per picture: how they are written, and that they are drawn by weight from seed and number alone."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leandit.data import Caption, DataConfig, EmojiConfig, Example, Loader, MetadataFolderConfig, build_source
from leandit.data.captions import BadCaption, parse_captions
from leandit.errors import LeanDiTError
from leandit.random import Stream, generator


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ("a cat", (Caption("a cat", 1.0),)),
        (["a", "b"], (Caption("a", 1.0), Caption("b", 1.0))),
        ([{"text": "a", "weight": 9}, {"text": "b"}, "c"], (Caption("a", 9.0), Caption("b", 1.0), Caption("c", 1.0))),
    ],
)
def test_forms_of_captions(value: object, expected: tuple[Caption, ...]) -> None:
    assert parse_captions(value, "text") == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "'text' is a number"),
        ({"text": "a"}, "'text' is an object"),
        (b"a", "'text' is of type bytes"),
        *[(blank, "'text' is empty") for blank in ("", " \n\t", "\u3000")],
        (["a", ""], "text\\[1\\] is empty"),
        ([{"text": " ", "weight": 2}], "text\\[0\\] is empty"),
        ([], "'text' is a list of 0 captions"),
        (["a"] * 1001, "'text' is a list of 1001 captions"),
        (["a", None], "text\\[1\\] is of type NoneType"),
        ([["a"]], "text\\[0\\] is a list"),
        ([{"text": 3}], 'write "text" and "weight"'),
        ([{"text": "a", "wieght": 2}], "text\\[0\\] has the keys text, wieght"),
        *[
            ([{"text": "a", "weight": w}], "has the weight")
            for w in (0, -1, True, "2", None, float("nan"), float("inf"))
        ],
    ],
)
def test_values_that_are_no_captions(value: object, problem: str) -> None:
    with pytest.raises(BadCaption, match=problem):
        parse_captions(value, "text")


class Weighted:
    """Every picture has captions of weight 6, 3 and 1; the last one says which picture it is."""

    class_names = ()

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Example:
        captions = (Caption("often", 6.0), Caption("sometimes", 3.0), Caption(f"rarely {index}", 1.0))
        return Example(np.zeros((4, 4, 3), np.uint8), None, captions, str(index))


def drawn(count: int, batch_size: int = 50, seed: int = 0, **options: int) -> list[str]:
    config = DataConfig(source=EmojiConfig(), image_size=4, **options)
    batches = islice(Loader(Weighted(), config, batch_size, seed).batches(), count // batch_size)
    return [text for batch in batches for text in batch.texts or ()]


def test_captions_are_drawn_by_weight() -> None:
    counts = Counter(text.split()[0] for text in drawn(5000))
    # Four standard deviations of the binomial counts.
    for word, share in (("often", 0.6), ("sometimes", 0.3), ("rarely", 0.1)):
        assert abs(counts[word] - 5000 * share) < 4 * (5000 * share * (1 - share)) ** 0.5


def test_the_draw_depends_on_seed_and_number_alone() -> None:
    draws = [generator(0, Stream.CAPTION, n).random() for n in range(100)]
    expected = ["often" if u < 0.6 else "sometimes" if u < 0.9 else "rarely" for u in draws]
    assert [text.split()[0] for text in drawn(100)] == expected
    assert drawn(100) == drawn(100, batch_size=10) == drawn(100, num_threads=3)
    assert drawn(100) != drawn(100, seed=1)


def test_streams_keep_their_numbers() -> None:
    assert [stream.name for stream in sorted(Stream)][:10] == [
        *["ORDER", "AUGMENT", "NOISE", "TIMESTEP", "LABEL_DROP", "INIT", "SAMPLE", "SAMPLER_STEP"],
        *["CAPTION", "VALIDATION"],
    ]
    assert [int(stream) for stream in sorted(Stream)][:10] == list(range(10))


def test_metadata_with_several_captions(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "a.png", "text": [{"text": "long", "weight": 9}, "short"]}))
    source = build_source(MetadataFolderConfig(path=str(tmp_path)))
    assert source[0].captions == (Caption("long", 9.0), Caption("short", 1.0))
    assert source[0].text == "long"
    path.write_text(json.dumps({"file_name": "a.png", "text": ["x", 3]}))
    with pytest.raises(LeanDiTError, match=r"line 1: text\[1\] is a number"):
        build_source(MetadataFolderConfig(path=str(tmp_path)))


def test_emoji_captions_and_their_variants() -> None:
    classes = {"fruit": ("food-fruit",)}
    plain = build_source(EmojiConfig(classes=classes, split="all"))
    varied = build_source(EmojiConfig(classes=classes, split="all", caption_variants=True))
    place = next(i for i in range(len(plain)) if plain[i].key == "red apple (fluent)")
    assert plain[place].captions == (Caption("red apple, fluent emoji", 8.0),)
    assert {c.text: c.weight for c in varied[place].captions} == {
        "red apple, fluent emoji": 8.0,
        "a picture of red apple": 1.0,
        "food-fruit: red apple": 1.0,
    }
    assert all("emoji" in (varied[i].text or "") for i in range(len(varied)))
