"""DSG and T2I-CompBench on answers with known outcome, worked by hand, and BLIP's answers on a tiny random model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leandit.errors import LeanDiTError
from leandit.evaluation.benchmarks import BlipVQA, CompBench, Dsg, Graph, Question
from leandit.evaluation.benchmarks.compbench import phrases_score, read_phrased, spacy_noun_phrases
from leandit.evaluation.benchmarks.dsg import graph_score, read_graphs
from leandit.evaluation.benchmarks.vqa import plain
from leandit.evaluation.metric import Drawn
from tiny_judges import job, loud, pictures, text_job

PICTURE = torch.zeros(8, 8, 3, dtype=torch.uint8)


class FakeVQA:
    """Answers from a table; a question that is not in it is a mistake of the test."""

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table

    def __call__(self, picture: torch.Tensor, questions: Sequence[str]) -> torch.Tensor:
        return torch.tensor([self.table[question] for question in questions])

    def about(self) -> dict[str, Any]:
        return {"vqa": "fake"}


def graph(**parents: Sequence[int]) -> Graph:
    """Return a graph whose question n has the parents qn."""
    return Graph("a prompt", {int(name[1:]): Question(f"{name}?", tuple(above)) for name, above in parents.items()})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({1: True, 2: True, 3: True, 4: True}, 1.0),
        # No car: neither its colour nor its place on the road counts.
        ({1: False, 2: True, 3: True, 4: True}, 1 / 4),
        ({1: True, 2: False, 3: True, 4: True}, 3 / 4),
        ({1: True, 2: True, 3: False, 4: True}, 2 / 4),
        ({1: False, 2: False, 3: False, 4: False}, 0.0),
    ],
)
def test_a_child_of_a_no_counts_as_no(answers: dict[int, bool], expected: float) -> None:
    # 1: a car? 2: is it red? 3: a road? 4: is the car on the road?
    assert graph_score(graph(q1=[], q2=[1], q3=[], q4=[1, 3]), answers) == pytest.approx(expected)


def test_a_grandchild_goes_by_its_parents_own_answer() -> None:
    chain = graph(q1=[], q2=[1], q3=[2])
    assert graph_score(chain, {1: False, 2: True, 3: True}) == pytest.approx(1 / 3)


def test_a_dependency_on_nothing_is_refused() -> None:
    with pytest.raises(LeanDiTError, match=r"question 2.*depends on question 5"):
        graph(q1=[], q2=[5])


CSV = """item_id,text,keywords,proposition_id,dependency,category_broad,tuple,question_natural_language
a_1,"a red car, parked",car,1,0,entity,x,Is there a car?
a_1,"a red car, parked","car, red",2,1,attribute,x,Is the car red?
b_2,two cats,cats,1,0,entity,x,Are there cats?
b_2,two cats,dogs,2,0,entity,x,Are there dogs?
b_2,two cats,both,3,"1,2",relation,x,Are cats and dogs together?
"""


def test_the_authors_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "dsg.csv").write_text(CSV)
    first, second = read_graphs(tmp_path / "dsg.csv")
    assert first.prompt == "a red car, parked"
    assert first.questions == {1: Question("Is there a car?"), 2: Question("Is the car red?", (1,))}
    assert second.questions[3].parents == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "item_id"),
        ("item_id,text\na,b\n", "proposition_id"),
        (CSV.replace('"1,2"', "x"), "row 6"),
        (CSV.replace('"1,2"', "7"), "question 7"),
    ],
)
def test_bad_question_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dsg.csv").write_text(text)
    with pytest.raises(LeanDiTError, match=message):
        read_graphs(tmp_path / "dsg.csv")


def test_dsg_averages_over_pictures(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "dsg.csv").write_text(CSV)
    answers = {"Is there a car?": 0.4, "Is the car red?": 0.9, "Are there cats?": 0.6, "Are there dogs?": 0.5}
    metric = Dsg(FakeVQA(answers | {"Are cats and dogs together?": 1.0}))
    wanted = text_job(folders["sentence"], num_samples=5, paths={"dsg": tmp_path / "dsg.csv"})
    plan = metric.plan(wanted)
    assert list(plan.wanted or ()) == ["a red car, parked"] * 2 + ["two cats"] * 2
    # No car: 0 of 2. Cats, but not beyond a half dogs, so not together: 1 of 3.
    result = metric.measure(wanted, Drawn(pictures(4, 8), plan))
    assert result.values == {"DSG": pytest.approx((0 + 0 + 1 / 3 + 1 / 3) / 4)}
    assert result.made_of["pictures_per_prompt"] == 2


def test_a_generator_makes_the_questions_of_the_references_captions(folders: dict[str, Path]) -> None:
    metric = Dsg(FakeVQA({"q1?": 1.0}), lambda prompt: Graph(prompt, {1: Question("q1?")}))
    wanted = text_job(folders["sentence"], num_samples=3)
    plan = metric.plan(wanted)
    assert len(plan.wanted or ()) == 3
    assert metric.measure(wanted, Drawn(pictures(3, 8), plan)).values == {"DSG": 1.0}


def test_phrases_multiply_up_to_the_eighth() -> None:
    assert phrases_score(PICTURE, ["a red book", "a vase"], FakeVQA({"a red book?": 0.5, "a vase?": 0.8})) == (
        pytest.approx(0.4)
    )
    assert phrases_score(PICTURE, [], FakeVQA({})) == 1.0
    ten = [f"p{i}" for i in range(10)]
    chances = {f"{phrase}?": 0.9 for phrase in ten}
    assert phrases_score(PICTURE, ten, FakeVQA(chances)) == pytest.approx(0.9**8)


def test_compbench_reads_phrases_and_plain_prompts(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a red book and a vase", "phrases": ["a red book", "a vase"]}\n')
    wanted = text_job(folders["sentence"], num_samples=1, paths={"compbench": tmp_path / "p.jsonl"})
    metric = CompBench(FakeVQA({"a red book?": 0.5, "a vase?": 0.5}))
    plan = metric.plan(wanted)
    assert metric.measure(wanted, Drawn(pictures(1, 8), plan)).values == {"T2I-CompBench BLIP-VQA": 0.25}
    (tmp_path / "p.txt").write_text("a book and a vase\n\na cat\n")
    found = read_phrased(tmp_path / "p.txt", lambda prompt: prompt.split(" and "))
    assert [item.phrases for item in found] == [("a book", "a vase"), ("a cat",)]


@pytest.mark.parametrize("line", ["{}", '{"prompt": "a", "phrases": "a"}', "[1]", "{"])
def test_bad_lines_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "phrases": []}\n' + line)
    with pytest.raises(LeanDiTError, match="line 2"):
        read_phrased(tmp_path / "p.jsonl")


@pytest.mark.parametrize("metric", [Dsg(), CompBench()])
def test_class_models_and_missing_files_are_refused(metric: Any, folders: dict[str, Path]) -> None:
    with pytest.raises(LeanDiTError, match="prompts"):
        metric.plan(job())
    with pytest.raises(LeanDiTError, match="--weights-from"):
        metric.plan(text_job(folders["sentence"]))


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "yes", "no", "is", "the", "cat", "red", "?", "[DEC]"]


def save_blip(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BlipConfig, BlipForQuestionAnswering, PreTrainedTokenizerFast

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 11, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **ends, "encoder_hidden_size": 16, "vocab_size": len(WORDS), "max_position_embeddings": 40}
    config = BlipConfig(text_config=text, vision_config={**sizes, "image_size": 16, "patch_size": 8})
    torch.manual_seed(0)
    loud(BlipForQuestionAnswering(config)).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)
    return folder


def test_blips_answer_is_its_own_first_words(tmp_path: Path) -> None:
    from transformers import BlipForQuestionAnswering

    folder = save_blip(tmp_path)
    shown = pictures(1)[0]
    asked = ["Is the CAT red?", "the cat?"]
    found = BlipVQA(folder)(shown, asked)
    model = BlipForQuestionAnswering.from_pretrained(folder).eval()
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((shown / 255 - mean) / std).permute(2, 0, 1)[None]
    for probability, ids in zip(found.tolist(), ([2, 6, 7, 8, 9, 10, 3], [2, 7, 8, 10, 3]), strict=True):
        rows = torch.tensor([ids])
        # transformers' own generation, which keeps the scores of the first word.
        out = model.generate(
            rows, pixels, torch.ones_like(rows), max_new_tokens=1, output_logits=True, return_dict_in_generate=True
        )
        first = out.logits[0][0].softmax(-1)
        assert probability == pytest.approx(float(first[4] / (first[4] + first[5])), abs=1e-5)
    assert not math.isclose(*found.tolist(), abs_tol=1e-3)


def test_questions_are_written_as_blip_knows_them() -> None:
    assert plain('A "Red" cat, (big)! : is it?') == "a red cat, big  is it?"
    assert len(plain("word " * 80).split()) == 50


def test_a_tokenizer_without_yes_is_refused(tmp_path: Path) -> None:
    folder = save_blip(tmp_path)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"yes"', '"maybe"'))
    with pytest.raises(LeanDiTError, match="'yes'"):
        BlipVQA(folder)


def test_places_are_no_phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = ["a cat", "top", "the left", "a red box", "the right", "the side", "the top"]
    spacy = SimpleNamespace(load=lambda name: lambda prompt: SimpleNamespace(noun_chunks=chunks))
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    assert list(spacy_noun_phrases()("a cat on the left of a red box")) == ["a cat", "a red box", "the top"]
