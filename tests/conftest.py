"""All tests run with shapes checked: jaxtyping's annotations are enforced by beartype on every call."""

from jaxtyping import install_import_hook

CHECKED = ("ops", "nn", "moe", "diffusion", "models", "sampling", "probe")
install_import_hook([f"leandit.{package}" for package in CHECKED], "beartype.beartype").__enter__()

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)
