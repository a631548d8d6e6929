"""LeanDiT: lean diffusion transformers. Experts race for tokens, layers share weights.

    leandit.train(leandit.run_config("quickstart"), "runs/quickstart")
    run = leandit.load("runs/quickstart")
    pictures = leandit.sample(run, labels=["heart"], seeds=range(4))
    numbers = leandit.evaluate(run, ["kid"]).values
    report = leandit.probe(run).report
    model = leandit.create_model("RaceDiT-B/2-4in32")

The names below are imported on first use, so that `import leandit` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leandit.api import (
        compare,
        create_model,
        dry_run,
        evaluate,
        list_models,
        list_runs,
        load,
        probe,
        run_config,
        sample,
        train,
    )
    from leandit.errors import LeanDiTError

__all__ = [
    "LeanDiTError",
    "compare",
    "create_model",
    "dry_run",
    "evaluate",
    "list_models",
    "list_runs",
    "load",
    "probe",
    "run_config",
    "sample",
    "train",
]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    if name == "LeanDiTError":
        from leandit.errors import LeanDiTError

        return LeanDiTError
    if name in __all__:
        from leandit import api

        return getattr(api, name)
    raise AttributeError(f"module 'leandit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
