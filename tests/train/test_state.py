"""The state of a run: everything comes back, by name, whatever the layout of the optimiser."""

from types import SimpleNamespace

import pytest
import torch
from steps import build, guard_of, take_steps, tiny_config

from dinov2.errors import UserError
from dinov2.logging import MetricLogger
from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint, Snapshot, state_digest
from dinov2.train.early_stopping import EarlyStopping
from dinov2.train.optimization import build_optimizer
from dinov2.train.state import TrainState


def make_state(cfg) -> TrainState:
    model = build(cfg)
    stopping = EarlyStopping(tracking="auc_20", sign=1.0, patience=None, minimum=0)
    optimizer = build_optimizer(cfg, model.get_params_groups())
    return TrainState(model, optimizer, MetricLogger(), stopping, guard_of(cfg), settings={"train.seed": 0})


def saved_by(state: TrainState, folder) -> SavedCheckpoint:
    checkpointer = Checkpointer(folder)
    checkpointer.save(state.snapshot(), state.iteration)
    checkpointer.finish()
    return checkpointer.load_newest()


@pytest.fixture(scope="module")
def cfg():
    return tiny_config(train={"centering": "centering"})


@pytest.fixture
def trained(cfg) -> TrainState:
    """Three steps of a run with a loss scaler, as a GPU has it, and a score."""
    state = make_state(cfg)
    take_steps(cfg, state, 3)
    state.samples_consumed, state.hooks_pending = 12, False
    state.model.fp16_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1)
    state.model.fp16_scaler.load_state_dict({**state.model.fp16_scaler.state_dict(), "_growth_tracker": 7})
    state.metrics.update(total_loss=1 / 3, lr=float("nan"))
    state.early_stopping.update({"teacher.auc_20": 0.7}, 3)
    return state


def test_everything_comes_back(cfg, trained, tmp_path):
    saved = saved_by(trained, tmp_path)
    other = make_state(cfg)
    other.model.fp16_scaler = torch.amp.GradScaler("cpu")
    other.load(saved)
    before, after = trained.snapshot(), other.snapshot()
    assert state_digest(after.tensors, after.values) == state_digest(before.tensors, before.values)
    assert (other.iteration, other.samples_consumed, other.hooks_pending) == (3, 12, False)
    assert (other.early_stopping.best, other.early_stopping.best_iteration) == (0.7, 3)
    assert other.metrics.meters["total_loss"].global_avg == 1 / 3
    assert other.model.fp16_scaler.state_dict() == trained.model.fp16_scaler.state_dict()
    assert float(other.model.dino_loss.center.abs().sum()) > 0


def test_a_loaded_state_goes_on_as_the_saved_one(cfg, trained, tmp_path):
    trained.model.fp16_scaler = None
    saved = saved_by(trained, tmp_path)
    other = make_state(cfg)
    other.load(saved)
    assert take_steps(cfg, other, 3) == take_steps(cfg, trained, 3)
    ours, theirs = other.snapshot(), trained.snapshot()
    assert state_digest(ours.tensors, {}) == state_digest(theirs.tensors, {})


def test_names_say_what_a_tensor_is(trained, tmp_path):
    tensors = saved_by(trained, tmp_path).tensors
    shape = trained.model.student["backbone"].norm.weight.shape
    for name in (
        "model.student.backbone.norm.weight",
        "model.teacher.backbone.norm.weight",
        "optimizer.backbone.norm.weight.exp_avg",
        "optimizer.backbone.norm.weight.exp_avg_sq",
    ):
        assert tensors[name] == (torch.float32, shape)
    assert tensors["optimizer.backbone.norm.weight.step"].shape == ()
    assert tensors["model.dino_loss.center"].shape == (1, 50)


def test_moments_belong_to_parameters_not_to_groups(trained, tmp_path):
    saved = saved_by(trained, tmp_path)
    flat = tiny_config(
        train={"centering": "centering"},
        optim={"layerwise_decay": 1.0, "patch_embed_lr_mult": 1.0, "adamw_beta1": 0.8},
    )
    other = make_state(flat)
    assert len(other.optimizer.param_groups) != len(trained.optimizer.param_groups)
    other.load(saved)
    for name, parameter in other.model.student.named_parameters():
        theirs = trained.optimizer.state[trained.model.student.get_parameter(name)]
        assert torch.equal(other.optimizer.state[parameter]["exp_avg"], theirs["exp_avg"]), name
    assert {group["betas"] for group in other.optimizer.param_groups} == {(0.8, 0.999)}


def test_before_the_first_step_there_are_no_moments(cfg, tmp_path):
    state = make_state(cfg)
    saved = saved_by(state, tmp_path)
    assert not [name for name in saved.tensors if name.startswith("optimizer.")]
    other = make_state(cfg)
    take_steps(cfg, other, 1)
    other.load(saved)
    assert other.optimizer.state_dict()["state"] == {}


def test_networks_alone(cfg, trained, tmp_path):
    saved = saved_by(trained, tmp_path)
    other = make_state(cfg)
    other.load_networks(saved)
    assert (other.iteration, len(other.optimizer.state)) == (0, 0)
    assert torch.equal(
        other.model.teacher["dino_head"].last_layer.weight_v, trained.model.teacher["dino_head"].last_layer.weight_v
    )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"dino": {"head_n_prototypes": 40}}, r"center is float32 \(1, 40\) here and float32 \(1, 50\) there"),
        ({"student": {"num_register_tokens": 2}}, "register_tokens is float32 .* here and None there"),
        ({"student": {"layerscale": None}}, "ls1.gamma is None here and float32"),
    ],
)
def test_another_model_is_refused_by_name_before_anything_changes(trained, tmp_path, sections, message):
    saved = saved_by(trained, tmp_path)
    other = make_state(tiny_config(**sections))
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        other.load(saved)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.model.state_dict().items())


def test_a_checkpoint_of_tensors_only_shares_their_memory(trained):
    snapshot = trained.snapshot()
    assert isinstance(snapshot, Snapshot)
    weight = trained.model.student["backbone"].norm.weight
    assert snapshot.tensors["model.student.backbone.norm.weight"].data_ptr() == weight.data_ptr()
    assert SimpleNamespace(**snapshot.values).settings == {"train.seed": 0}
