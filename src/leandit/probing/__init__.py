"""Record from outside what a model does, draw it as figures, and report it as a page."""

from leandit.probing.content import ContentTrace, content_report, record_content
from leandit.probing.draw import Drawn, check_has_experts, check_pictures, draw_recorded
from leandit.probing.figures import plot_compute, plot_curves
from leandit.probing.page import HOW_TO_GET_THE_PAGE
from leandit.probing.recorder import ComputeRecorder, ComputeTrace
from leandit.probing.report import AXES, build_report
from leandit.probing.routing import RoutingRecorder, RoutingTrace
from leandit.probing.runner import probe_facts
from leandit.probing.write import write_report

__all__ = [
    "AXES",
    "HOW_TO_GET_THE_PAGE",
    "ComputeRecorder",
    "ComputeTrace",
    "ContentTrace",
    "Drawn",
    "RoutingRecorder",
    "RoutingTrace",
    "build_report",
    "check_has_experts",
    "check_pictures",
    "content_report",
    "draw_recorded",
    "plot_compute",
    "plot_curves",
    "probe_facts",
    "record_content",
    "write_report",
]
