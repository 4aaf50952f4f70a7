"""How a module is spread over processes."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinov2.distributed import get_global_size


def parallelize(module: nn.Module) -> nn.Module:
    """What the forward pass of a trained module has to go through.

    With several processes that is a replica which averages gradients and has broadcast rank 0's
    parameters; alone it is the module itself. The module stays as it was: its parameters keep their names,
    and state is read from it, never from the replica.
    """
    if get_global_size() == 1:
        return module
    device = next(module.parameters()).device
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
