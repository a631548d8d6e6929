"""See what a model did: recorded from outside, drawn as pictures."""

from leandit.probe.compute_map import plot_compute
from leandit.probe.curves import plot_curves
from leandit.probe.recorder import ComputeRecorder, ComputeTrace

__all__ = ["ComputeRecorder", "ComputeTrace", "plot_compute", "plot_curves"]
