"""A backbone's weights out of a file: by name, completely, or not at all."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dinov2.errors import UserError, unknown_name

from .adapting import LAYERSCALE, PARTIAL, REGISTERS, adapt_layerscale, adapt_registers
from .architecture import architecture_of
from .names import NETWORKS, unchunked
from .networks import WeightsFile, read_networks
from .positions import POSITIONS, fit_positions

logger = logging.getLogger("dinov2")

ALLOWANCES = (REGISTERS, LAYERSCALE, PARTIAL)


@dataclass(frozen=True)
class LoadOptions:
    """How weights are taken over.

    Attributes:
        network: "teacher" or "student", where a file has both.
        positions: "interpolate" or "center_cut", for a grid of another size; see `fit_positions`.
        allow: differences that are no mistake. "registers": only one side has register tokens; "layerscale": only one
            side has LayerScale; "partial": any tensors that are missing, too many or of another shape.
    """

    network: str = "teacher"
    positions: str = "interpolate"
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("pretrained_network", [self.network], NETWORKS),
            ("pretrained_positions", [self.positions], POSITIONS),
            ("pretrained_allow", self.allow, ALLOWANCES),
        ):
            for name in given:
                if name not in known:
                    raise unknown_name(kind, name, known)

    @classmethod
    def from_config(cls, student: Any) -> "LoadOptions":
        """The `pretrained_*` keys of the `student` section of a configuration."""
        return cls(student.pretrained_network, student.pretrained_positions, tuple(student.pretrained_allow))


@dataclass
class LoadReport:
    """What became of the tensors of a file and of a backbone.

    Attributes:
        source: the network and its file.
        total: how many tensors the backbone has.
        matched: its tensors that come from the file, `resized` and adapted ones among them.
        kept: those that the file may lack and does; they stay as they are.
        missing: all others that the file lacks.
        unexpected: tensors of the file's backbone that the model lacks.
        reshaped: tensors whose shapes differ, with both.
        notes: on what was adapted, for people.
    """

    source: str
    total: int
    matched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the backbone and of the file found its counterpart."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        counts = [f"{len(self.matched)} of {self.total} tensors matched"]
        named = (
            ("not in the file and kept", self.kept),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.reshaped),
        )
        counts += [f"{len(names)} {what} ({_some(names)})" for what, names in named if names]
        counts += [f"resized: {', '.join(self.resized)}"] if self.resized else []
        return "; ".join([*counts, *self.notes])


def load_pretrained_backbone(model: nn.Module, path: str | Path, *, options: LoadOptions = LoadOptions()) -> LoadReport:
    """Load the backbone in a file of any known kind into a backbone.

    Nothing is changed unless everything fits. A mask token is not asked for: where the file has none, as those of
    DINO v1 and timm, the model keeps its own, which plays no part in features.

    Args:
        model: a `DinoVisionTransformer`, on any device.
        path: see `read_content` for what it may be.
    Returns:
        What matched; it is logged, too.
    Raises:
        UserError: if the file cannot be read, or not all names and shapes agree; it says why.
    """
    file = read_networks(path)
    name, network = file.choose(options.network)
    before = model.state_dict()
    own = {unchunked(key): key for key in before}
    tensors = {short: before[key] for short, key in own.items()}
    source = f"{name or 'backbone'} of {path} ({network.dialect}'s names)"
    state, report = _match(model, dict(network.backbone), tensors, options, source)
    if not report.complete and PARTIAL not in options.allow:
        raise UserError(_refusal(file, report, network.backbone, tensors))
    if not report.matched:
        raise UserError(f"{path} has nothing for this backbone: {report}")
    model.load_state_dict({own[short]: state[short] for short in report.matched}, strict=False)
    log = logger.info if report.complete else logger.warning
    log(f"loaded the {source}: {report}{_left_out(file)}")
    return report


def _match(
    model: Any, state: dict[str, Tensor], tensors: Mapping[str, Tensor], options: LoadOptions, source: str
) -> tuple[dict[str, Tensor], LoadReport]:
    """Fit a state dict to the tensors of a model, by their unchunked names."""
    report = LoadReport(source, len(tensors))
    if REGISTERS in options.allow:
        report.notes += adapt_registers(state, tensors)
    if LAYERSCALE in options.allow:
        report.notes += adapt_layerscale(state, tensors)
    may_lack = {"mask_token", *(["register_tokens"] if REGISTERS in options.allow else [])}
    report.kept = sorted((tensors.keys() & may_lack) - state.keys())
    if _needs_resizing(state, tensors):
        before, count = state["pos_embed"].shape[1] - 1, tensors["pos_embed"].shape[1] - 1
        rule = {"antialias": model.interpolate_antialias, "offset": model.interpolate_offset}
        state["pos_embed"] = fit_positions(state["pos_embed"].float(), count, options.positions, **rule)
        report.resized.append(f"pos_embed from {before} to {count} patches ({options.positions})")
    report.missing = sorted(tensors.keys() - state.keys() - set(report.kept))
    report.unexpected = sorted(state.keys() - tensors.keys())
    for name in (name for name in tensors if name in state):
        theirs, ours = tuple(state[name].shape), tuple(tensors[name].shape)
        if theirs == ours:
            report.matched.append(name)
        else:
            report.reshaped.append(f"{name} {theirs} for {ours}")
    return state, report


def _needs_resizing(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether positions are there that differ in their number alone."""
    theirs, ours = state.get("pos_embed"), tensors["pos_embed"]
    return theirs is not None and theirs.ndim == 3 and theirs.shape[2] == ours.shape[2] and theirs.shape != ours.shape


def _refusal(file: WeightsFile, report: LoadReport, stored: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Why weights are not loaded, and what would make them."""
    if not stored:
        return f"{file.path} has heads, but no backbone"
    reasons = architecture_of(stored).differences(architecture_of(tensors))
    because = f" Because: {'; '.join(reasons)}." if reasons else ""
    keys = " ".join(reasons)
    hints = ["make the configuration fit the file"]
    hints += ["allow it with student.pretrained_allow=[registers]"] if "num_register_tokens: " in keys else []
    hints += ["allow it with student.pretrained_allow=[layerscale]"] if "layerscale: " in keys else []
    hints.append("load what fits and leave the rest random with student.pretrained_allow=[partial]")
    return f"{report.source} does not fit the backbone of the configuration: {report}.{because} {', or '.join(hints)}"


def _left_out(file: WeightsFile) -> str:
    return f"; left out {len(file.left_out)} of no network ({_some(file.left_out)})" if file.left_out else ""


def _some(names: Any) -> str:
    return f"{', '.join(list(names)[:3])}{', ...' if len(names) > 3 else ''}"
