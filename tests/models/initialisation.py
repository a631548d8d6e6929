"""Whether `init_weights` sets every parameter and buffer, for the tests of every backbone."""

from __future__ import annotations

import torch

from leandit.models import Backbone, BackboneConfig


def initialised(config: BackboneConfig) -> tuple[Backbone, Backbone]:
    """Return a model that was poisoned with NaN and then initialised, and a freshly built one, which it must equal."""
    with torch.device("meta"):
        model = config.build()
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(torch.nan)
    torch.manual_seed(0)
    model.init_weights()
    torch.manual_seed(0)
    fresh = config.build()
    expected = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, expected[name]), name
    return model, fresh
