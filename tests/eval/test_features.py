"""Features are those of the data set, in its order, whoever computes them and however they are sharded."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_making import NoiseImages
from ranks import run_ranks
from steps import build, tiny_config
from torch.distributed.tensor import DTensor
from torch.utils.data import TensorDataset

from dinov2.errors import UserError
from dinov2.eval.features import Extraction, Features, extract_features
from dinov2.eval.tokens import FeatureKind, backbone_network, evaluated
from dinov2.fsdp import local_parameters

CPU = torch.device("cpu")


def features_of_backbones(
    cfg: Any, samples: int, batch_size: int, folder: Path | None = None
) -> dict[str, tuple[np.ndarray, ...]]:
    """Features of teacher and student in one pass, as arrays, which outlive the process."""
    torch.set_num_threads(1)
    model = build(cfg)
    backbones = {name: model.get_submodule(f"{name}.backbone") for name in ("teacher", "student")}
    kind = FeatureKind(2, avgpool=True)
    networks = {name: backbone_network(b, kind, dtype="fp32", device=CPU) for name, b in backbones.items()}
    with evaluated(*backbones.values()):
        how = Extraction(batch_size=batch_size, folder=folder)
        found = extract_features(networks, NoiseImages(samples), device=CPU, how=how)
    return {name: (features.values.numpy().copy(), features.labels.numpy()) for name, features in found.items()}


def test_order_and_labels():
    images, labels = torch.arange(11.0)[:, None], torch.arange(11)
    dataset = TensorDataset(images, labels)
    networks = {"twice": lambda x: x * 2, "thrice": lambda x: x * 3}
    found = extract_features(networks, dataset, device=CPU, how=Extraction(batch_size=4))
    assert torch.equal(found["twice"].values, images * 2)
    assert torch.equal(found["thrice"].values, images * 3)
    assert torch.equal(found["twice"].labels, labels)


@pytest.mark.parametrize(("samples", "world"), [(11, 2), (2, 3)])
def test_any_number_of_ranks_gives_the_same_bits(samples, world):
    """Also where ranks have batches of different numbers and sizes, or none at all."""
    expected = features_of_backbones(tiny_config(), samples, 3)
    for rank in run_ranks(features_of_backbones, world, tiny_config(), samples, 3):
        for name in ("teacher", "student"):
            assert np.array_equal(rank[name][0], expected[name][0])
            assert rank[name][1].tolist() == [i % 3 for i in range(samples)]


@pytest.mark.parametrize("strategy", ["SHARD_GRAD_OP", "FULL_SHARD"])
def test_sharded_networks_are_evaluated_in_place(strategy):
    """A rank without images takes part: each forward pass gathers the weights of all ranks."""
    expected = features_of_backbones(tiny_config(), 3, 3)
    for rank in run_ranks(features_of_backbones, 2, tiny_config(strategy), 3, 3):
        assert np.array_equal(rank["teacher"][0], expected["teacher"][0])
        assert np.array_equal(rank["student"][0], expected["student"][0])


def whole_parameters_after_evaluation(cfg: Any) -> int:
    """How many parameters of the student's backbone are no slices after an evaluation."""
    model = build(cfg)
    backbone = model.get_submodule("student.backbone")
    local_parameters(backbone)
    for _ in range(2):  # the second time the method is registered already
        network = backbone_network(backbone, FeatureKind(), dtype="fp32", device=CPU)
        with evaluated(backbone):
            assert not backbone.training
            extract_features({"student": network}, NoiseImages(2), device=CPU)
    assert backbone.training
    return sum(not isinstance(parameter, DTensor) for parameter in backbone.parameters())


def test_sharded_networks_hold_slices_after_it():
    assert run_ranks(whole_parameters_after_evaluation, 2, tiny_config("SHARD_GRAD_OP")) == [0, 0]


def test_another_batch_size_changes_the_last_bits_at_most():
    expected = features_of_backbones(tiny_config(), 11, 11)["teacher"][0]
    for batch_size in (1, 4):
        found = features_of_backbones(tiny_config(), 11, batch_size)["teacher"][0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_features_in_a_file(tmp_path):
    expected = features_of_backbones(tiny_config(), 7, 2)
    for rank in run_ranks(partial(features_of_backbones, folder=tmp_path), 2, tiny_config(), 7, 2):
        assert np.array_equal(rank["teacher"][0], expected["teacher"][0])
        assert np.array_equal(rank["student"][0], expected["student"][0])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    how = Extraction(folder=tmp_path / "file")
    with pytest.raises(UserError, match="cannot write .*a.npy"):
        extract_features({"a": lambda x: x.flatten(1)}, NoiseImages(2), device=CPU, how=how)


def test_what_has_no_features():
    with pytest.raises(UserError, match="without samples"):
        extract_features({"a": lambda x: x}, TensorDataset(torch.zeros(0, 1)), device=CPU)
    images = torch.ones(5, 1)
    images[3] = torch.nan
    with pytest.raises(UserError, match="features of sample 3 by the teacher are not finite"):
        extract_features({"teacher": lambda x: x}, TensorDataset(images, torch.arange(5)), device=CPU)


def test_selection_keeps_groups():
    features = Features(torch.arange(8.0).view(4, 2), torch.arange(4), torch.tensor([5, 5, 6, 6]))
    chosen = features.select(torch.tensor([3, 0])).columns(slice(1, 2))
    assert chosen.values.tolist() == [[7.0], [1.0]]
    assert chosen.labels.tolist() == [3, 0]
    assert chosen.groups.tolist() == [6, 5]
    assert features._replace(groups=None).select(torch.tensor([1])).groups is None
