"""See what a model did: recorded from outside, drawn as pictures, reported as a page."""

from leandit.probe.compute_map import plot_compute
from leandit.probe.curves import plot_curves
from leandit.probe.draw import Drawn, check_has_experts, check_pictures, draw_recorded
from leandit.probe.page import HOW_TO_GET_THE_PAGE
from leandit.probe.recorder import ComputeRecorder, ComputeTrace
from leandit.probe.report import AXES, build_report
from leandit.probe.routing import RoutingRecorder, RoutingTrace
from leandit.probe.write import write_report

__all__ = [
    "AXES",
    "HOW_TO_GET_THE_PAGE",
    "ComputeRecorder",
    "ComputeTrace",
    "Drawn",
    "RoutingRecorder",
    "RoutingTrace",
    "build_report",
    "check_has_experts",
    "check_pictures",
    "draw_recorded",
    "plot_compute",
    "plot_curves",
    "write_report",
]
