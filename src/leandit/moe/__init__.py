"""Mixtures of experts in three seams: the router decides, the dispatcher moves, the experts compute."""

from leandit.moe.biased_router import BiasedRouter, BiasedRouterConfig
from leandit.moe.config import ROUTERS, MoEConfig, RouterConfig
from leandit.moe.gate import GATES
from leandit.moe.layer import Experts, MoELayer
from leandit.moe.losses import (
    AUXILIARY_LOSSES,
    auxiliary_losses,
    gshard_balance,
    load_balance,
    router_similarity,
    z_loss,
)
from leandit.moe.router import PooledRouter
from leandit.moe.seams import Dispatcher, ExpertRows, RouterModule, RouterOutput, RouterStats, Selector, routers
from leandit.moe.statistics import (
    CollapseWatch,
    after_step,
    combination_usage,
    combine,
    max_violation,
    router_stats,
)
from leandit.moe.strategies import STRATEGIES, Strategy, select_mask
from leandit.moe.threshold import Threshold

__all__ = [
    "AUXILIARY_LOSSES",
    "GATES",
    "ROUTERS",
    "STRATEGIES",
    "BiasedRouter",
    "BiasedRouterConfig",
    "CollapseWatch",
    "Dispatcher",
    "ExpertRows",
    "Experts",
    "MoEConfig",
    "MoELayer",
    "PooledRouter",
    "RouterConfig",
    "RouterModule",
    "RouterOutput",
    "RouterStats",
    "Selector",
    "Strategy",
    "Threshold",
    "after_step",
    "auxiliary_losses",
    "combination_usage",
    "combine",
    "gshard_balance",
    "load_balance",
    "max_violation",
    "router_similarity",
    "router_stats",
    "routers",
    "select_mask",
    "z_loss",
]
