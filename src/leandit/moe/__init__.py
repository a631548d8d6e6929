"""Mixtures of experts in three seams: the router decides, the dispatcher moves, the experts compute."""

from leandit.moe.assignment import Assignment
from leandit.moe.config import MoEConfig
from leandit.moe.experts import Experts
from leandit.moe.gate import GATES
from leandit.moe.layer import MoELayer
from leandit.moe.losses import (
    AUXILIARY_LOSSES,
    auxiliary_losses,
    gshard_balance,
    load_balance,
    router_similarity,
    z_loss,
)
from leandit.moe.router import Router, RouterOutput
from leandit.moe.statistics import (
    CollapseWatch,
    RouterStats,
    combination_usage,
    combine,
    max_violation,
    post_step,
    router_stats,
    routers,
)
from leandit.moe.strategies import STRATEGIES, Strategy, select
from leandit.moe.threshold import Threshold

__all__ = [
    "AUXILIARY_LOSSES",
    "GATES",
    "STRATEGIES",
    "Assignment",
    "CollapseWatch",
    "Experts",
    "MoEConfig",
    "MoELayer",
    "Router",
    "RouterOutput",
    "RouterStats",
    "Strategy",
    "Threshold",
    "auxiliary_losses",
    "combination_usage",
    "combine",
    "gshard_balance",
    "load_balance",
    "max_violation",
    "post_step",
    "router_similarity",
    "router_stats",
    "routers",
    "select",
    "z_loss",
]
