"""Meta-training and evaluation over many tasks, on any number of devices and hosts."""

from pullback.meta.evaluation import Evaluation, evaluate
from pullback.meta.pretraining import pretrain
from pullback.meta.training import Block, TrainResult, TrainState, default_optimizer, train

__all__ = [
    "Block",
    "Evaluation",
    "TrainResult",
    "TrainState",
    "default_optimizer",
    "evaluate",
    "pretrain",
    "train",
]
