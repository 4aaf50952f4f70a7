"""The list of known weights.

Only what the publishers say is stated. No SHA-256 is: none was known when the list was made. Where weights are handed
out after a login, there is the page and no address.
"""

from typing import Any, NamedTuple

from .registry import IMAGENET, PublishedWeights

_META = "https://dl.fbaipublicfiles.com"
_GITHUB = "https://github.com"
_ZENODO = "https://zenodo.org/records/10406135"


class _Size(NamedTuple):
    """One of DINOv2's architectures, its width, and its parameters with positions for 518 px."""

    arch: str
    ffn_layer: str
    width: int
    parameters: int


DINOV2_SIZES = {
    "vits14": _Size("vit_small", "mlp", 384, 22_056_576),
    "vitb14": _Size("vit_base", "mlp", 768, 86_580_480),
    "vitl14": _Size("vit_large", "mlp", 1024, 304_368_640),
    "vitg14": _Size("vit_giant2", "swiglufused", 1536, 1_136_480_768),
}
# Key of Lunit's functions -> file. "BT" stands for Barlow Twins.
LUNIT_FILES = {
    "BT": "bt_rn50_ep200.torch",
    "MoCoV2": "mocov2_rn50_ep200.torch",
    "SwAV": "swav_rn50_ep200.torch",
    "DINO_p16": "dino_vit_small_patch16_ep200.torch",
    "DINO_p8": "dino_vit_small_patch8_ep200.torch",
}
LUNIT_MEAN = (0.70322989, 0.53606487, 0.66096631)
LUNIT_STD = (0.21716536, 0.26081574, 0.20723464)
# The repository was renamed; the second name is its present one.
_LUNIT_RELEASES = tuple(
    f"{_GITHUB}/lunit-io/{name}/releases/download/pretrained-weights"
    for name in ("benchmark-pathology-ssl", "benchmark-ssl-pathology")
)


def lunit_urls(key: str) -> tuple[str, ...]:
    """Where a file of Lunit's is, the address in their code first."""
    return tuple(f"{release}/{LUNIT_FILES[key]}" for release in _LUNIT_RELEASES)


def vit_settings(
    arch: str,
    patch_size: int,
    *,
    image_size: int = 224,
    registers: int = 0,
    ffn_layer: str = "mlp",
    layerscale: float | None = 1.0,
) -> dict[str, Any]:
    """The configuration keys of a vision transformer; positions are resized as DINOv2's models do it."""
    return {
        "student.arch": arch,
        "student.patch_size": patch_size,
        "student.ffn_layer": ffn_layer,
        "student.layerscale": layerscale,
        "student.num_register_tokens": registers,
        "student.interpolate_antialias": registers > 0,
        "student.interpolate_offset": 0.0 if registers else 0.1,
        "student.block_chunks": 0,
        "crops.global_crops_size": image_size,
        "crops.local_crops_size": 7 * patch_size,
    }


def _dinov2(size: str, registers: int) -> PublishedWeights:
    arch, ffn_layer, width, parameters = DINOV2_SIZES[size]
    file = f"dinov2_{size}{'_reg4' if registers else ''}_pretrain.pth"
    return PublishedWeights(
        f"dinov2_{size}{'_reg' if registers else ''}",
        licence="Apache-2.0",
        page=f"{_GITHUB}/facebookresearch/dinov2",
        urls=(f"{_META}/dinov2/dinov2_{size}/{file}",),
        settings=vit_settings(arch, 14, image_size=518, registers=registers, ffn_layer=ffn_layer),
        data="LVD-142M, natural images",
        image_size=518,
        parameters=parameters + registers * width,
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )


def _linear_head(size: str, registers: int, layers: int) -> PublishedWeights:
    base = f"dinov2_{size}{'_reg4' if registers else ''}"
    name = f"dinov2_{size}{'_reg' if registers else ''}_linear{layers}"
    return PublishedWeights(
        name,
        licence="Apache-2.0",
        page=f"{_GITHUB}/facebookresearch/dinov2",
        urls=(f"{_META}/dinov2/dinov2_{size}/{base}_linear{'' if layers == 1 else layers}_head.pth",),
        kind="linear head",
        data="ImageNet-1k, on the frozen backbone",
        parameters=1000 * ((1 + layers) * DINOV2_SIZES[size].width + 1),
    )


def _dino(size: str, patch_size: int, parameters: int) -> PublishedWeights:
    file = f"dino_{'deitsmall' if size == 's' else 'vitbase'}{patch_size}_pretrain"
    return PublishedWeights(
        f"dino_vit{size}{patch_size}",
        licence="Apache-2.0",
        page=f"{_GITHUB}/facebookresearch/dino",
        urls=(f"{_META}/dino/{file}/{file}.pth",),
        settings=vit_settings("vit_small" if size == "s" else "vit_base", patch_size, layerscale=None),
        data="ImageNet-1k",
        image_size=224,
        parameters=parameters,
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )


def _lunit(key: str) -> PublishedWeights:
    patch_size = {"DINO_p16": 16, "DINO_p8": 8}.get(key)
    trunk = {"student.arch": "resnet50", "student.patch_size": 32, "crops.local_crops_size": 96}
    return PublishedWeights(
        f"lunit/{key}",
        licence="the Lunit public licence",
        terms="non-commercial use only; no licence to patents; attribution when shared",
        page=f"{_GITHUB}/lunit-io/benchmark-ssl-pathology",
        urls=lunit_urls(key),
        settings=vit_settings("vit_small", patch_size, layerscale=None) if patch_size else trunk,
        data="TCGA, 19 million tiles",
        image_size=224,
        mpp="about 0.5 and 0.25 (20x and 40x)",
        parameters={None: 23_508_032, 16: 21_665_664, 8: 21_670_272}[patch_size],
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
    )


def _roth(size: str, data: str, iteration: int) -> PublishedWeights:
    arch, ffn_layer = DINOV2_SIZES[f"{size}14"][:2]
    file = f"dinov2_{size}_{data}_training_{iteration}_teacher_checkpoint.pth"
    return PublishedWeights(
        f"roth/{size}14_{data.removesuffix('_10k').lower()}",
        licence="the terms of the Zenodo record",
        page=_ZENODO,
        urls=(f"{_ZENODO}/files/{file}",),
        settings=vit_settings(arch, 14, ffn_layer=ffn_layer),
        data=f"{'NCT-CRC-HE-100K' if data.startswith('NCT') else 'TCGA'}, from DINOv2's weights (Roth et al. 2024)",
        image_size=224,
        mpp="0.5" if data.startswith("NCT") else "",
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )


def _by_hand(name: str, *, licence: str, settings: dict[str, Any], terms: str = "", **facts: Any) -> PublishedWeights:
    """Weights on Hugging Face that are handed out to those who have agreed to something."""
    normalisation = {"mean": IMAGENET[0], "std": IMAGENET[1], "image_size": 224, "mpp": "0.5"}
    page = f"https://huggingface.co/{facts.pop('repository')}"
    return PublishedWeights(name, licence, page, settings=settings, terms=terms, **{**normalisation, **facts})


ENTRIES: tuple[PublishedWeights, ...] = (
    *(_dinov2(size, registers) for registers in (0, 4) for size in DINOV2_SIZES),
    _dino("s", 16, 21_665_664),
    _dino("s", 8, 21_670_272),
    _dino("b", 16, 85_798_656),
    _dino("b", 8, 85_807_872),
    *(_lunit(key) for key in LUNIT_FILES),
    _roth("vits", "NCT_10k", 1999),
    _roth("vitg", "NCT", 9999),
    _roth("vits", "TCGA", 29999),
    _roth("vitg", "TCGA", 59999),
    _by_hand(
        "uni",
        repository="MahmoodLab/UNI",
        licence="CC-BY-NC-ND-4.0",
        terms="non-commercial academic research only, after registration",
        settings=vit_settings("vit_large", 16),
    ),
    _by_hand(
        "phikon_v2",
        repository="owkin/phikon-v2",
        licence="the Owkin non-commercial licence",
        terms="non-commercial use only",
        settings=vit_settings("vit_large", 16),
    ),
    _by_hand(
        "h_optimus_0",
        repository="bioptimus/H-optimus-0",
        licence="Apache-2.0",
        settings=vit_settings("vit_giant2", 14, registers=4, ffn_layer="swiglufused"),
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
    ),
    _by_hand(
        "prov_gigapath",
        repository="prov-gigapath/prov-gigapath",
        licence="the licence of its page",
        terms="handed out after registration",
        settings=vit_settings("vit_giant2", 16, ffn_layer="swiglufused"),
    ),
    *(_linear_head(size, reg, layers) for reg in (0, 4) for size in DINOV2_SIZES for layers in (1, 4)),
)
