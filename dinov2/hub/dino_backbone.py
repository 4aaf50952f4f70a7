"""`get_dino_backbone`: the backbones of a training, ready to use, from whatever file it left.

The call and the order of results are those of Roth et al. 2024 (tools_dinov2).
"""

from pathlib import Path
from typing import Any

import torch

from dinov2.errors import UserError
from dinov2.models import DinoVisionTransformer
from dinov2.models.weights import LoadOptions, build_backbone_like, load_pretrained_backbone, read_networks


def get_dino_backbone(dict_path: str | Path, device: str | torch.device = "cpu", *, which: str = "both") -> Any:
    """Backbones in evaluation mode; their architecture is read off the weights, and nothing is downloaded.

    Args:
        dict_path: a training checkpoint with both networks, or an export; `docs/weights.md` lists what is understood.
            Where it is an export of one network, the other is looked for beside it. A folder is that of an export. A
            bare backbone counts as the teacher.
        which: "teacher" (the one to use for features), "student", or "both".
    Returns:
        The backbone asked for, or (teacher, student).
    Raises:
        UserError: if the file cannot be read, or does not have them.
    """
    if which not in ("teacher", "student", "both"):
        raise UserError(f"which={which!r}: expected teacher, student or both")
    path = Path(dict_path)
    if (path / "teacher_checkpoint.pth").is_file():
        path = path / "teacher_checkpoint.pth"
    if which == "both":
        return _backbone(path, "teacher", device), _backbone(path, "student", device)
    return _backbone(path, which, device)


def _backbone(path: Path, network: str, device: str | torch.device) -> DinoVisionTransformer:
    file = read_networks(path)
    is_bare = "" in file.networks and network == "teacher"  # a published backbone, which is the one to use
    if network not in file.networks and not is_bare:
        other = {"teacher": "student", "student": "teacher"}[network]
        sibling = path.with_name(path.name.replace(other, network))
        if sibling == path or not sibling.is_file():
            raise UserError(
                f"{path} has {' and '.join(filter(None, file.networks)) or 'one network'}, and no {network}; "
                'which="teacher" asks for the teacher alone'
            )
        path, file = sibling, read_networks(sibling)
    model = build_backbone_like(file.choose(network)[1].backbone)
    load_pretrained_backbone(model, path, options=LoadOptions(network=network))
    return model.requires_grad_(False).eval().to(device)
