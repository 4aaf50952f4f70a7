"""How a submodule is spread over processes: sharded, replicated, or, in one process, neither.

Whatever the layout, a parameter keeps its name, and the module that holds it stays the one that state is read
from; `parallelize` returns what a forward pass has to go through.
"""

from .layout import Layout
from .parallelize import broadcast_from_first_rank, gradient_sync, parallelize, process_mesh
from .shard import gathered, is_trained, local_parameters

__all__ = [
    "Layout",
    "broadcast_from_first_rank",
    "gathered",
    "gradient_sync",
    "is_trained",
    "local_parameters",
    "parallelize",
    "process_mesh",
]
