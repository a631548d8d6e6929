"""The Inception-v3 of FID: the network and the weights that published FIDs are computed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leandit.errors import LeanDiTError
from leandit.evaluation.extractors.base import Extractor, Outputs, to_planes
from leandit.evaluation.extractors.weights import read_verified, sha256_of

# The first digits of the file's hash, which are also in its name.
SHA256_PREFIX = "6726825d"
FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE_NAME}"
SIZE = 299
_SPATIAL_CHANNELS = 7
_CLASSES = 1008

# A convolution: name, channels out, kernel, stride, padding. A branch is a list of them; those in an inner tuple are
# parallel.
_Conv = tuple[str, int, int | tuple[int, int], int, int | tuple[int, int]]
_Branch = list[_Conv | tuple[_Conv, _Conv]]
_ROW: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {n: ((1, n), (0, n // 2)) for n in (3, 7)}
_COLUMN: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {n: ((n, 1), (n // 2, 0)) for n in (3, 7)}


def _one(name: str, out: int) -> _Conv:
    return (name, out, 1, 1, 0)


def _line(name: str, out: int, table: dict[int, tuple[tuple[int, int], tuple[int, int]]], size: int) -> _Conv:
    kernel, padding = table[size]
    return (name, out, kernel, 1, padding)


def _block_a(pool: int) -> list[_Branch]:
    return [
        [_one("branch1x1", 64)],
        [_one("branch5x5_1", 48), ("branch5x5_2", 64, 5, 1, 2)],
        [_one("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 1, 1)],
        [_one("branch_pool", pool)],
    ]


def _block_b() -> list[_Branch]:
    return [
        [("branch3x3", 384, 3, 2, 0)],
        [_one("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 2, 0)],
    ]


def _block_c(c7: int) -> list[_Branch]:
    single: _Branch = [
        _one("branch7x7_1", c7),
        _line("branch7x7_2", c7, _ROW, 7),
        _line("branch7x7_3", 192, _COLUMN, 7),
    ]
    double: _Branch = [
        _one("branch7x7dbl_1", c7),
        _line("branch7x7dbl_2", c7, _COLUMN, 7),
        _line("branch7x7dbl_3", c7, _ROW, 7),
        _line("branch7x7dbl_4", c7, _COLUMN, 7),
        _line("branch7x7dbl_5", 192, _ROW, 7),
    ]
    return [[_one("branch1x1", 192)], single, double, [_one("branch_pool", 192)]]


def _block_d() -> list[_Branch]:
    seven: _Branch = [
        _one("branch7x7x3_1", 192),
        _line("branch7x7x3_2", 192, _ROW, 7),
        _line("branch7x7x3_3", 192, _COLUMN, 7),
        ("branch7x7x3_4", 192, 3, 2, 0),
    ]
    return [[_one("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2, 0)], seven]


def _block_e() -> list[_Branch]:
    return [
        [_one("branch1x1", 320)],
        [
            _one("branch3x3_1", 384),
            (_line("branch3x3_2a", 384, _ROW, 3), _line("branch3x3_2b", 384, _COLUMN, 3)),
        ],
        [
            _one("branch3x3dbl_1", 448),
            ("branch3x3dbl_2", 384, 3, 1, 1),
            (_line("branch3x3dbl_3a", 384, _ROW, 3), _line("branch3x3dbl_3b", 384, _COLUMN, 3)),
        ],
        [_one("branch_pool", 192)],
    ]


# Name, channels in, branches, and what the last branch pools with: "none" keeps the pooled picture as it is.
_MIXED = (
    ("Mixed_5b", 192, _block_a(32), "average"),
    ("Mixed_5c", 256, _block_a(64), "average"),
    ("Mixed_5d", 288, _block_a(64), "average"),
    ("Mixed_6a", 288, _block_b(), "reduce"),
    ("Mixed_6b", 768, _block_c(128), "average"),
    ("Mixed_6c", 768, _block_c(160), "average"),
    ("Mixed_6d", 768, _block_c(160), "average"),
    ("Mixed_6e", 768, _block_c(192), "average"),
    ("Mixed_7a", 768, _block_d(), "reduce"),
    ("Mixed_7b", 1280, _block_e(), "average"),
    # The TensorFlow graph of FID takes the maximum here, other Inceptions take the average.
    ("Mixed_7c", 2048, _block_e(), "maximum"),
)


class _BasicConv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, into: int, spec: _Conv) -> None:
        super().__init__()
        _, out, kernel, stride, padding = spec
        self.conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Parallel branches, joined by channels; the pooling branch is the last."""

    def __init__(self, into: int, branches: list[_Branch], pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.names: list[list[tuple[str, ...]]] = []
        for branch in branches:
            width = into
            steps = []
            for step in branch:
                specs: tuple[_Conv, ...] = (step,) if isinstance(step[0], str) else step
                for spec in specs:
                    self.add_module(spec[0], _BasicConv(width, spec))
                width = specs[0][1]
                steps.append(tuple(spec[0] for spec in specs))
            self.names.append(steps)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self.names:
            h = self._pooled(x) if steps[0] == ("branch_pool",) else x
            for names in steps:
                h = torch.cat([self.get_submodule(name)(h) for name in names], 1)
            outputs.append(h)
        if self.pool == "reduce":
            outputs.append(F.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "maximum":
            return F.max_pool2d(x, 3, 1, 1)
        # TensorFlow's average does not count the padding.
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class FidInception(nn.Module):
    """Pictures of 299 x 299, scaled to -1..1, to 2,048 features, the spatial map of sFID, and 1,008 logits.

    Reference: Rethinking the Inception Architecture (arXiv 1512.00567), with the poolings and the 1,008 classes of the
    graph inception-2015-12-05 that FID (arXiv 1706.08500) was defined with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _BasicConv(3, ("", 32, 3, 2, 0))
        self.Conv2d_2a_3x3 = _BasicConv(32, ("", 32, 3, 1, 0))
        self.Conv2d_2b_3x3 = _BasicConv(32, ("", 64, 3, 1, 1))
        self.Conv2d_3b_1x1 = _BasicConv(64, ("", 80, 1, 1, 0))
        self.Conv2d_4a_3x3 = _BasicConv(80, ("", 192, 3, 1, 0))
        for name, into, branches, pool in _MIXED:
            self.add_module(name, _Mixed(into, branches, pool))
        self.fc = nn.Linear(2048, _CLASSES)

    def forward(self, x: Float[Tensor, "samples 3 height width"]) -> Outputs:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        spatial = x
        for name, *_ in _MIXED:
            if name == "Mixed_6d":
                # The TensorFlow graph calls the first branch mixed_6/conv.
                spatial = self.get_submodule(name).get_submodule("branch1x1")(x)
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        # The Inception score is by custom computed without the bias of the last layer.
        return Outputs(features, spatial[:, :_SPATIAL_CHANNELS].flatten(1), features @ self.fc.weight.T)


def resize_as_tf1(x: Float[Tensor, "samples channels height width"], size: int) -> Tensor:
    """Return bilinear samples at i * side / size, without half-pixel centres or antialiasing, as TensorFlow 1 does."""
    for axis in (2, 3):
        side = x.shape[axis]
        place = torch.arange(size, dtype=torch.float32, device=x.device) * (side / size)
        low = place.long().clamp(max=side - 1)
        high = (low + 1).clamp(max=side - 1)
        share = (place - low).view(-1, 1) if axis == 2 else place - low
        first = x.index_select(axis, low)
        x = first + (x.index_select(axis, high) - first) * share
    return x


class Inception(Extractor):
    """The 2,048 features of FID; only with the published weights, whose hash is compared."""

    name = "Inception"

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        tensors = read_verified(weights, self.name, SHA256_PREFIX)
        self._sha256 = sha256_of(weights, self.name)
        network = FidInception()
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise LeanDiTError(f"{weights}: not the layout of {FILE_NAME}: {error}") from None
        self._network = network.to(self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def outputs(self, pictures: UInt8[Tensor, "samples height width channels"]) -> Outputs:
        """Return 2,048 features, the 2,023 numbers of sFID, and 1,008 logits without bias."""
        x = resize_as_tf1(to_planes(pictures, self.device), SIZE)
        out = self._network((x - 128) / 128)
        spatial, logits = (None if each is None else each.float().cpu() for each in (out.spatial, out.logits))
        return Outputs(out.features.float().cpu(), spatial, logits)

    def about(self) -> dict[str, Any]:
        """Return what the features depend on, as JSON."""
        return {
            "extractor": self.name,
            "weights_sha256": self._sha256,
            "resolution": SIZE,
            "resampling": "bilinear as TensorFlow 1",
        }
