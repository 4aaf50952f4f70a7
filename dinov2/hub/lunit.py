"""Lunit's pathology models, called as in their benchmark.

Source: Kang et al. 2023, "Benchmarking Self-Supervised Learning on Diverse Pathology Datasets"; the names and
signatures are those of github.com/lunit-io/benchmark-ssl-pathology.
Differs from the reference: the patch size follows from the key, and one that contradicts it is refused, as is an
unknown key; files are read without running code; the licence is shown; models carry their normalisation.
"""

from pathlib import Path
from typing import Any, NamedTuple

from dinov2.errors import UserError, unknown_name
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.vision_transformer import vit_small as dinov2_vit_small
from dinov2.models.weights import load_pretrained_backbone

from .entries import LUNIT_FILES, LUNIT_MEAN, LUNIT_STD, lunit_urls
from .resolve import resolve_weights
from .trunks import ResNet50Trunk, load_strictly

_PATCH_SIZES = {"DINO_p16": 16, "DINO_p8": 8}


class Normalization(NamedTuple):
    """How images in [0, 1] are normalised for a model: (x - mean) / std, for red, green and blue."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Published for the vision transformers. For the ResNets others are in circulation, ImageNet's, of unclear origin.
NORMALIZATION = Normalization(LUNIT_MEAN, LUNIT_STD)


def get_pretrained_url(key: str) -> str:
    """The address of a file.

    Raises:
        UserError: for an unknown key.
    """
    _check_key(key, list(LUNIT_FILES))
    return lunit_urls(key)[0]


def resnet50(
    pretrained: bool = True, progress: bool = True, key: str = "BT", *, weights: str | Path = ""
) -> ResNet50Trunk:
    """ResNet-50 without classifier: images (B, 3, 224, 224) -> (B, 2048, 7, 7); `pooled` gives (B, 2048).

    Args:
        pretrained: with its weights, downloaded if they have to be.
        progress: show the download.
        key: BT (Barlow Twins), MoCoV2 or SwAV.
        weights: a file to be used instead of the download.
    Raises:
        UserError: for another key, or weights that cannot be had or do not fit.
    """
    _check_key(key, [name for name in LUNIT_FILES if name not in _PATCH_SIZES])
    model: Any = ResNet50Trunk()
    if pretrained:
        load_strictly(model, resolve_weights(weights or f"lunit/{key}", progress=progress))
    model.normalization = NORMALIZATION
    return model


def vit_small(
    pretrained: bool = True,
    progress: bool = True,
    key: str = "DINO_p16",
    *,
    patch_size: int | None = None,
    weights: str | Path = "",
) -> DinoVisionTransformer:
    """ViT-S without LayerScale and mask token: images (B, 3, 224, 224) -> class token (B, 384).

    Args:
        pretrained, progress, weights: as for `resnet50`.
        key: DINO_p16 or DINO_p8.
        patch_size: that of the key, which is also what None means.
    Raises:
        UserError: for another key or patch size, or weights that cannot be had or do not fit.
    """
    _check_key(key, list(_PATCH_SIZES))
    if patch_size not in (None, _PATCH_SIZES[key]):
        raise UserError(f"key={key} has patches of {_PATCH_SIZES[key]} px, not patch_size={patch_size}")
    model: Any = dinov2_vit_small(_PATCH_SIZES[key], img_size=224, init_values=None, block_chunks=0)
    model.mask_token = None  # these weights were not trained with masks
    if pretrained:
        load_pretrained_backbone(model, resolve_weights(weights or f"lunit/{key}", progress=progress))
    model.normalization = NORMALIZATION
    return model


def _check_key(key: str, known: list[str]) -> None:
    if key not in known:
        raise unknown_name("key of Lunit's weights", key, known)
