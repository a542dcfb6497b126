"""Which of the processes that train one run together this one is, as torchrun tells each in its environment."""

import os
from typing import NamedTuple


class Place(NamedTuple):
    """A process among those that train together; alone by default.

    Attributes:
        rank: its number among all; number 0 alone writes, evaluates and speaks.
        world_size: how many there are.
        local_rank: its number on its machine.
        local_world_size: how many are on its machine.
        num_restarts: how often they were all started again because one had died.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    num_restarts: int = 0


def place() -> Place:
    """This process's own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    return Place(*(int(os.environ[name]) for name in names))
