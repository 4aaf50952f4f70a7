"""Exports compute in other libraries what the model computes here, or are not kept."""

import errno
import json
import os
import re
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import fill
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dinov2.data.demo import draw_tile, make_slide_look
from dinov2.data.transforms import make_normalize_transform
from dinov2.errors import UserError
from dinov2.hub.__main__ import get_args_parser
from dinov2.hub.commands import COMMANDS
from dinov2.hub.export import formats, huggingface_format, onnx_format, timm_format
from dinov2.hub.export.check import MismatchError, demo_tiles
from dinov2.hub.export.completing import with_all_parts
from dinov2.hub.export.kinds import FORMATS
from dinov2.layers import Block, MemEffAttention
from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer
from dinov2.models.weights import load_pretrained_backbone
from dinov2.utils import outputs

SIZE = 56  # pixels
MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.25, 0.2)
STATED = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]
PACKAGES = {
    "safetensors": (),
    "timm": ("timm",),
    "huggingface": ("transformers",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
}


def backbone(arch: str = "vit_mini", *, registers: int = 0, **kwargs: Any) -> DinoVisionTransformer:
    """A backbone whose every tensor has something to tell."""
    rule = {"interpolate_antialias": True, "interpolate_offset": 0.0} if registers else {}
    settings = {"img_size": SIZE, "init_values": 1.0, "block_chunks": 0, "num_register_tokens": registers, **rule}
    torch.manual_seed(0)
    model = ARCHITECTURES[arch](14, **{**settings, **kwargs})
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "token" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def export(model: DinoVisionTransformer, kind: str, folder: Path, *arguments: str) -> Path:
    """Export a model by the command; returns the folder of the export."""
    return run(folder / "out", kind, *saved(model, folder), *arguments)


def saved(model: DinoVisionTransformer, folder: Path) -> list[str]:
    """Save a model's weights; returns the arguments that name and describe them."""
    torch.save(model.state_dict(), folder / "weights.pth")
    return ["--weights", str(folder / "weights.pth"), "--num-heads", str(model.num_heads), *STATED]


def run(output: Path, kind: str, *arguments: str) -> Path:
    for package in PACKAGES[kind]:
        pytest.importorskip(package)
    args = get_args_parser().parse_args(["export", "--to", kind, "--output", str(output), *arguments])
    COMMANDS["export"].run(args)
    return output


def use(folder: Path, tile: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Class and patch tokens of a tile by the code of the model card."""
    Image.fromarray(tile).save(folder / "tile.png")
    monkeypatch.chdir(folder)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    return torch.as_tensor(scope["cls"]), torch.as_tensor(scope["patches"])


def tokens(model: DinoVisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        features = model.forward_features(images)
    return features["x_norm_clstoken"], features["x_norm_patchtokens"]


def difference(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """The largest one, relative to the largest value."""
    assert [one.shape for one in found] == [one.shape for one in expected]
    return max(((one - other).abs().max() / other.abs().max()).item() for one, other in zip(found, expected))


def draw(size: int = SIZE) -> np.ndarray:
    return draw_tile("TUM", slide=make_slide_look(seed=1, slide=1), rng=np.random.default_rng(1), size=size)


def normalised(tile: np.ndarray) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W)"""
    return make_normalize_transform(MEAN, STD)(torch.from_numpy(tile).permute(2, 0, 1).float() / 255)[None]


def assert_card_code_works(kind: str, arch: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> Path:
    model, tile = backbone(arch, **kwargs), draw()
    expected = tokens(model, normalised(tile))
    arguments = saved(model, folder)
    del model  # one of a billion parameters takes 4.5 GB
    output = run(folder / "out", kind, *arguments)
    assert difference(use(output, tile, monkeypatch), expected) < (1e-4 if kind == "onnx" else 1e-5)
    return output


def assert_one_size(folder: Path) -> None:
    """An ONNX graph refuses other sizes, also those of as many patches; positions are constants."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for size in ((84, 84), (28, 112), (112, 28), (60, 60)):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="invalid dimensions"):
            session.run(None, {"images": np.zeros((1, 3, *size), np.float32)})


PLAIN, GATED = {"registers": 0, "ffn_layer": "mlp"}, {"registers": 4, "ffn_layer": "swiglufused"}


@pytest.mark.parametrize(
    ("kind", "arch", "settings"),
    [
        *((kind, "vit_mini", settings) for kind in PACKAGES for settings in (PLAIN, GATED) if kind != "onnx"),
        ("timm", "vit_small", GATED),
        ("onnx", "vit_mini", PLAIN),  # the gated one is in another test: tracing takes seconds
    ],
)
def test_the_code_of_the_card(kind, arch, settings, tmp_path, monkeypatch):
    output = assert_card_code_works(kind, arch, tmp_path, monkeypatch, **settings)
    if kind == "onnx":
        assert_one_size(output)
        model, tile = backbone(arch, **settings), draw(84)[14:70]  # not square
        assert difference(use(output, tile, monkeypatch), tokens(model, normalised(tile[:, 14:70]))) < 1e-4
    assert {path.stat().st_mode & 0o777 for path in output.glob("model*")} == {0o666 & ~umask()}


@pytest.mark.parametrize("kind", ["safetensors", "timm", "huggingface"])
@pytest.mark.parametrize("settings", [PLAIN, GATED])
def test_and_back(kind, settings, tmp_path):
    model = backbone(**settings)
    output = export(model, kind, tmp_path)
    again = ARCHITECTURES["vit_mini"](
        14, img_size=SIZE, init_values=1.0, ffn_layer=settings["ffn_layer"], num_register_tokens=settings["registers"]
    ).eval()
    assert load_pretrained_backbone(again, output).complete
    assert difference(tokens(again, normalised(draw())), tokens(model, normalised(draw()))) < 1e-5


def umask() -> int:
    """Of this process; there is no call that only reads it."""
    return int(re.search(r"Umask:\s*(\d+)", Path("/proc/self/status").read_text())[1], 8)


# Up to a minute each, three for ONNX; for the largest several, and 14 GB of memory.
@pytest.mark.slow
@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize(
    ("arch", "settings"),
    [
        ("vit_small", GATED),
        ("vit_base", PLAIN),
        ("vit_large", {"registers": 4, "ffn_layer": "mlp"}),
        pytest.param("vit_giant2", {"registers": 4, "ffn_layer": "swiglufused"}, id="vit_giant2"),
    ],
)
def test_all_sizes(kind, arch, settings, tmp_path, monkeypatch):
    assert_card_code_works(kind, arch, tmp_path, monkeypatch, **settings)


def test_what_the_card_of_timm_warns_of(tmp_path):
    timm = pytest.importorskip("timm")
    folder = export(backbone(), "timm", tmp_path)
    odd = torch.rand(1, 3, 60, 60)  # no multiple of 14
    larger = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=60).eval()
    assert is_cut_off(larger.forward_features, odd)
    assert timm.data.resolve_model_data_config(larger)["input_size"] == (3, SIZE, SIZE)
    wanted = timm.data.resolve_data_config({"input_size": (3, 84, 84)}, model=larger)
    assert (wanted["input_size"], tuple(wanted["mean"]), tuple(wanted["std"])) == ((3, 84, 84), MEAN, STD)
    dynamic = partial(timm.create_model, f"local-dir:{folder}", pretrained=True, dynamic_img_size=True)
    with pytest.raises(AssertionError, match="divisible by patch size"):
        dynamic().eval().forward_features(odd)
    assert dynamic(dynamic_img_pad=True).eval().forward_features(odd).shape[1] == 1 + 5 * 5
    by_name = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    kept = timm.data.resolve_model_data_config(by_name)
    assert (kept["input_size"], tuple(kept["mean"])) == ((3, 518, 518), (0.485, 0.456, 0.406))


def test_what_the_card_of_transformers_warns_of(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = export(backbone(), "huggingface", tmp_path)
    load = transformers.AutoModel.from_pretrained
    model, processor = load(folder).eval(), transformers.AutoImageProcessor.from_pretrained(folder)
    assert is_cut_off(lambda images: model(images).last_hidden_state, torch.rand(1, 3, 60, 60))
    tile = draw()
    right = processor(tile, return_tensors="pt")["pixel_values"]
    assert (right - normalised(tile)).abs().max() < 1e-5
    assert (processor(tile / np.float32(255), return_tensors="pt")["pixel_values"] - right).abs().max() > 1
    as_it_is = processor(tile / np.float32(255), return_tensors="pt", do_rescale=False)["pixel_values"]
    assert (as_it_is - right).abs().max() < 1e-5
    assert len(model(right, output_attentions=True).attentions) == 0
    model.set_attn_implementation("eager")
    assert len(model(right, output_attentions=True).attentions) == 2
    assert any("q_proj" in name for name, _ in model.named_parameters())
    assert model.load_state_dict(load_file(folder / "model.safetensors"), strict=False).missing_keys
    assert model.dtype == torch.float32
    model.half().save_pretrained(tmp_path / "half")
    assert load(tmp_path / "half").dtype == torch.float16


def is_cut_off(compute: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether the last 4 rows and columns make no difference."""
    other = images.clone()
    other[..., -4:] = 0
    other[..., -4:, :] = 0
    with torch.no_grad():
        return compute(images).equal(compute(other))


@pytest.mark.parametrize("kind", ["safetensors", "huggingface", "timm", "torchscript"])
def test_tiles_that_are_not_square_are_cut_and_not_squashed(kind, tmp_path, monkeypatch):
    model, tile = backbone(), draw(84)[14:70]  # 56 x 84
    output = export(model, kind, tmp_path)
    assert difference(use(output, tile, monkeypatch), tokens(model, normalised(tile[:, 14:70]))) < 1e-5


@pytest.mark.parametrize(
    ("registers", "rule"),
    [(0, (False, 0.1)), (0, (False, 0.0)), (0, (True, 0.0)), (4, (True, 0.0)), (4, (False, 0.0))],
)
@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_what_the_card_says_of_other_sizes(kind, registers, rule, tmp_path):
    model = backbone(registers=registers)
    output = export(model, kind, tmp_path)
    model.interpolate_antialias, model.interpolate_offset = rule
    for size in (28, 84):
        images = demo_tiles(size, MEAN, STD)
        with torch.no_grad():
            found = other_sizes_allowed(kind, output)(images)
        apart = difference((found[:, 0], found[:, 1 + registers :]), tokens(model, images))
        assert (apart < 1e-5) == ("agree there, too" in FORMATS[kind].other_sizes(model)), (size, apart)


def other_sizes_allowed(kind: str, folder: Path) -> Callable[[Tensor], Tensor]:
    """The model as the card says that it takes images of other sizes."""
    if kind == "timm":
        import timm

        return timm.create_model(f"local-dir:{folder}", pretrained=True, dynamic_img_size=True).eval().forward_features
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    return lambda images: model(images).last_hidden_state


def test_another_image_size(tmp_path, monkeypatch):
    model = backbone()
    output = export(model, "safetensors", tmp_path, "--image-size", "84")
    tile = draw(84)
    assert difference(use(output, tile, monkeypatch), tokens(model, normalised(tile))) < 1e-5
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="--image-size 85 is no multiple of the patch size, 14"):
        export(model, "safetensors", tmp_path / "other", "--image-size", "85")


@pytest.mark.parametrize("kind", ["timm", "huggingface"])
def test_parts_that_only_the_library_has(kind, tmp_path, monkeypatch):
    model = DinoVisionTransformer(
        SIZE,
        14,
        embed_dim=48,
        depth=3,
        num_heads=4,
        qkv_bias=False,
        ffn_bias=False,
        proj_bias=False,
        block_chunks=0,
        block_fn=partial(Block, attn_class=MemEffAttention),
    ).eval()
    fill(model, "bare")
    assert len(with_all_parts(model.state_dict())) == len(model.state_dict()) + 3 * (4 + 2)
    output = export(model, kind, tmp_path)
    assert difference(use(output, draw(), monkeypatch), tokens(model, normalised(draw()))) < 1e-5


def test_a_feed_forward_layer_of_any_width(tmp_path):
    assert int(44 * (98 / 44)) == 97  # as timm computes a width
    model = DinoVisionTransformer(
        SIZE, 14, embed_dim=44, depth=2, num_heads=2, mlp_ratio=98.5 / 44, init_values=1.0, block_chunks=0
    ).eval()
    fill(model, "wide")
    assert export(model, "timm", tmp_path).is_dir()
    with pytest.raises(UserError, match="no DINOv2 with feed-forward layers of width 98 for tokens of width 44"):
        run(tmp_path / "other", "huggingface", *saved(model, tmp_path))


@pytest.mark.parametrize(
    ("kind", "module", "translate"),
    [("timm", timm_format, "to_timm"), ("huggingface", huggingface_format, "to_huggingface")],
)
def test_a_mismatch_leaves_nothing(kind, module, translate, tmp_path, monkeypatch):
    """The two LayerScales of a block exchanged: all names and shapes are right, and the features are not."""
    correct = getattr(module, translate)

    def exchanged(state: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {"blocks.1.ls1.gamma": "blocks.1.ls2.gamma", "blocks.1.ls2.gamma": "blocks.1.ls1.gamma"}
        return correct({names.get(name, name): tensor for name, tensor in state.items()})

    monkeypatch.setattr(module, translate, exchanged)
    with pytest.raises(
        MismatchError, match=r"differ from the model's by up to \d.* of the largest number, and 0.0001 is"
    ):
        export(backbone(), kind, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_two_exports_into_one_folder_at_the_same_time(tmp_path):
    arguments = saved(backbone(), tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run, tmp_path / "out", "safetensors", *arguments) for _ in range(2)]
    [error] = [one.exception() for one in both if one.exception()]
    assert isinstance(error, UserError) and "is there already" in str(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out", "weights.pth"]


def test_a_full_disk_is_told_before_the_weights_are_read(tmp_path, monkeypatch):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs, "_write_probe", full)
    with pytest.raises(UserError, match="cannot write into .*: the disk is full"):
        run(tmp_path / "out", "safetensors", "--weights", "nothing.pth")


def test_a_disk_that_fills_does_not_end_the_process(tmp_path, monkeypatch):
    arguments = saved(backbone(), tmp_path)
    monkeypatch.setattr(outputs, "PROBE_BYTES", 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*out: no file may become that large"):
            run(tmp_path / "out", "torchscript", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_torchscript_refuses_other_images(tmp_path):
    output = export(backbone(), "torchscript", tmp_path)
    extra = {"notes.json": ""}
    model = torch.jit.load(output / "model.ts.pt", _extra_files=extra)
    assert json.loads(json.loads(extra["notes.json"])["mean"]) == list(MEAN)
    with pytest.raises(torch.jit.Error, match="expected 56 x 56 pixels"):
        model(torch.zeros(1, 3, 28, 112))  # as many patches


@pytest.mark.thorough  # 4 s
def test_large_graphs_keep_weights_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "_LARGEST_GRAPH", 0)
    model = backbone(**GATED)
    output = export(model, "onnx", tmp_path)
    assert {path.name for path in output.iterdir()} == {"README.md", "model.onnx", "model.onnx.data"}
    output.rename(tmp_path / "elsewhere")
    found = use(tmp_path / "elsewhere", draw(), monkeypatch)
    assert difference(found, tokens(model, normalised(draw()))) < 1e-4


def test_what_is_refused(tmp_path, monkeypatch):
    model = backbone()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    weights = ["--weights", str(tmp_path / "weights.pth")]
    with pytest.raises(UserError, match=r"normalised for .*weights.pth is not known.*--mean 0.485"):
        run(tmp_path / "out", "safetensors", *weights, "--num-heads", "2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="give both --mean R G B and --std R G B"):
        run(tmp_path / "out", "safetensors", *weights, "--num-heads", "2", *STATED[:4])
    with pytest.raises(UserError, match="how many attention heads .* give num_heads"):
        run(tmp_path / "out", "safetensors", *weights, *STATED)
    with pytest.raises(UserError, match="is there already"):
        run(tmp_path / "full", "safetensors", *weights, *STATED)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="current folder; name a new folder in it"):
        run(Path(), "safetensors", *weights, *STATED)
    with pytest.raises(UserError, match="weights file .* does not exist"):
        run(tmp_path / "out", "safetensors", "--weights", str(tmp_path / "none.pth"), *STATED)
    torch.save({"student": {f"backbone.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "student.pth")
    with pytest.raises(UserError, match="has student, and no teacher; choose with --network"):
        run(tmp_path / "out", "safetensors", "--weights", str(tmp_path / "student.pth"), *STATED)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"timm cannot be found: pip install timm, .*\[export\]"):
        run(tmp_path / "out", "timm", *weights, *STATED)
    assert {path.name for path in tmp_path.iterdir()} == {"weights.pth", "student.pth", "full", "here"}


def test_the_tiles_of_the_comparison_are_tissue():
    images = demo_tiles(28, MEAN, STD)
    assert images.shape == (3, 3, 28, 28)
    assert images.std(dim=(0, 2, 3)).min() > 0.2
    assert (images[0] - images[1]).abs().mean() > 0.1
