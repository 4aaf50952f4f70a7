"""Networks of others that are no vision transformers, with what an evaluation asks of a backbone."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from dinov2.errors import UserError
from dinov2.models.weights import read_content
from dinov2.models.weights.inert import is_weight


class ResNet50Trunk(ResNet):
    """ResNet-50 up to its last map of features, without pooling and classifier: 318 tensors.

    Source: He et al. 2016; parameter names are torchvision's.
    """

    embed_dim = num_features = 2048
    n_blocks = 1  # with class tokens, as an evaluation counts
    patch_size = 32  # pixels between neighbouring features

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.avgpool, self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, 2048, H/32, W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, 64, H/4, W/4)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """By DINOv2's names: the mean over the map (B, 2048), and its places (B, N, 2048)."""
        patches = self(x).flatten(2).transpose(1, 2)  # (B, N, 2048)
        return {"x_norm_clstoken": patches.mean(dim=1), "x_norm_patchtokens": patches}

    def pooled(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, 2048)."""
        return self.forward_features(x)["x_norm_clstoken"]

    def get_intermediate_layers(
        self, x: Tensor, n: int | Iterable[int] = 1, return_class_token: bool = False
    ) -> tuple[Any, ...]:
        """The map as patch tokens (B, N, 2048), its mean (B, 2048) as the class token; there is no earlier block."""
        if n not in (1, [0], (0,)):
            raise UserError(f"tokens of blocks {n}: a ResNet has those of its last map alone; ask for one block")
        features = self.forward_features(x)
        patches, pooled = features["x_norm_patchtokens"], features["x_norm_clstoken"]
        return ((patches, pooled),) if return_class_token else (patches,)


TRUNKS: dict[str, Callable[[], ResNet50Trunk]] = {"resnet50": ResNet50Trunk}


def load_strictly(module: nn.Module, path: str | Path) -> None:
    """Load a flat file of exactly a module's tensors.

    Raises:
        UserError: if the file has others, or cannot be read.
    """
    content = read_content(path)
    weights = {name: value for name, value in content.items() if is_weight(value)}
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(content.keys() - own.keys())
    reshaped = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    for what, names in (("lacks", missing), ("has, beside them,", unexpected), ("has of other shapes", reshaped)):
        if names:
            raise UserError(
                f"{path} is no file of a {type(module).__name__}, of which it has to have all {len(own)} tensors: it "
                f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            )
    module.load_state_dict(weights)
