"""All tests run with shapes checked: beartype enforces jaxtyping's annotations, see `shape_checks`."""

import os
from collections.abc import Iterator
from pathlib import Path

# For this process and all that tests start. Tensors this small gain nothing from threads, and threads that wait for a
# busy core cost tenfold.
os.environ["OMP_NUM_THREADS"] = "1"
# torch's compiler believes what the processor says of its vector units, and builds no programs to try them.
os.environ["TORCHINDUCTOR_VEC_ISA_OK"] = "1"

from jaxtyping import install_import_hook

_METRICS = ("frechet", "kernel", "precision_recall", "inception_score", "extractors")
CHECKED = (
    *("ops", "nn", "moe", "diffusion", "models", "sampling", "probing", "text", "data.scenes"),
    *(f"evaluation.{module}" for module in _METRICS),
)
install_import_hook([f"leandit.{package}" for package in CHECKED], "shape_checks.first_calls").__enter__()

import pytest  # noqa: E402
import torch  # noqa: E402

import shape_checks  # noqa: E402

pytest_plugins = ["tiny_encoders"]


def _seed() -> None:
    # Random weights do not depend on which tests ran before. torch.manual_seed also formats the stack, for CUDA.
    torch.default_generator.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Iterator[object]:
    _seed()
    return (yield)


def pytest_runtest_setup() -> None:
    shape_checks.begin_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[object]:
    _seed()
    return (yield)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tensors this small gain nothing from threads, and threads that wait for a busy core cost tenfold.
    torch.set_num_threads(1)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs leave blank figures: drawing takes ten times as long as such a small training (test_run_pictures.py)."""
    from PIL import Image

    for name in ("plot_curves", "plot_compute"):
        monkeypatch.setattr(f"leandit.pictures.{name}", lambda *arguments: Image.new("L", (99, 99)).save(arguments[-1]))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the preset `tiny`, with its pictures; to be read only."""
    from leandit.api import train
    from leandit.presets import run_config

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("finished") / "run"
    assert train(run_config("tiny"), out) == 0
    return out
