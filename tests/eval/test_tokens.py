"""Features are the tokens that they are named after, and kinds nest in each other."""

import pytest
import torch
from golden import fill, normal

from dinov2.errors import UserError
from dinov2.eval.tokens import FeatureKind, backbone_network, grid_columns, widest_kind
from dinov2.models.vision_transformer import DinoVisionTransformer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> DinoVisionTransformer:
    model = DinoVisionTransformer(
        img_size=28, patch_size=14, embed_dim=12, depth=3, num_heads=2, num_register_tokens=2, block_chunks=0
    )
    fill(model, "tokens")
    return model.eval()


def test_class_and_mean_patch_tokens(backbone):
    images = normal("images", (2, 3, 28, 28))
    outputs = backbone.forward_features(images)
    found = backbone_network(backbone, FeatureKind(), dtype="fp32", device=CPU)(images)
    assert torch.equal(found, outputs["x_norm_clstoken"])
    pooled = backbone_network(backbone, FeatureKind(1, avgpool=True), dtype="fp32", device=CPU)(images)
    assert torch.equal(pooled[:, :12], outputs["x_norm_clstoken"])
    torch.testing.assert_close(pooled[:, 12:], outputs["x_norm_patchtokens"].mean(dim=1))


def test_last_blocks_in_order(backbone):
    images = normal("images", (2, 3, 28, 28))
    layers = backbone.get_intermediate_layers(images, n=2, return_class_token=True)
    found = backbone_network(backbone, FeatureKind(2), dtype="fp32", device=CPU)(images)
    assert torch.equal(found, torch.cat([token for _, token in layers], dim=1))


def test_every_kind_of_a_grid_is_a_part_of_the_widest(backbone):
    images = normal("images", (2, 3, 28, 28))
    widest = backbone_network(backbone, widest_kind([1, 3]), dtype="fp32", device=CPU)(images)
    columns = grid_columns([1, 3], widest.shape[1])
    assert list(columns) == [f"{n}_blocks_avgpool_{avgpool}" for n in (1, 3) for avgpool in (False, True)]
    for blocks in (1, 3):
        for avgpool in (False, True):
            kind = FeatureKind(blocks, avgpool)
            own = backbone_network(backbone, kind, dtype="fp32", device=CPU)(images)
            assert torch.equal(widest[:, columns[str(kind)]], own)


def test_more_blocks_than_there_are(backbone):
    with pytest.raises(UserError, match=r"last 4 blocks: expected 1 .. 3"):
        backbone_network(backbone, FeatureKind(4), dtype="fp32", device=CPU)
