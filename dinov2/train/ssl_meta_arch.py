"""One step of DINOv2: teacher targets, student predictions, losses, gradients.

Source: Oquab et al. 2023, "DINOv2", section 4; names of losses, submodules and state-dict keys are the
reference's.
Differs from the reference: runs on any device and without a process group; masked patches are passed to
the heads as they are instead of padded to `upperbound` rows (a head treats rows one by one, so only the
time differs); the optimised loss is reported beside the displayed ones.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.configs import complete_config, validate_config
from dinov2.data.collate import Batch
from dinov2.fsdp import (
    Layout,
    broadcast_from_first_rank,
    gathered,
    gradient_sync,
    is_trained,
    local_parameters,
    parallelize,
    process_mesh,
)
from dinov2.loss import DINOLoss, KDELoss, KoLeoLoss, iBOTPatchLoss
from dinov2.loss.center import CenteredLoss
from dinov2.models import build_head, build_model_from_cfg
from dinov2.utils.dtype import autocast, compute_dtype
from dinov2.utils.param_groups import fuse_params_groups, get_params_groups_with_decay

from .distillation import build_frozen_teacher, distils
from .outputs import Observation, Predictions, StepOutput, Targets

NUM_GLOBAL_CROPS = 2


class SSLMetaArch(nn.Module):
    """Student, teacher and their losses."""

    def __init__(self, cfg: Any) -> None:
        """Build from a configuration; keys that it leaves out take their defaults.

        Raises:
            UserError: for unknown keys or names, or values that cannot work.
        """
        super().__init__()
        cfg = complete_config(cfg)
        validate_config(cfg)
        self.cfg = cfg
        self.fp16_scaler: torch.amp.GradScaler | None = None
        self.do_koleo = cfg.dino.koleo_loss_weight > 0
        self.do_ibot = cfg.ibot.loss_weight > 0
        self.ibot_separate_head = self.do_ibot and cfg.ibot.separate_head
        student_backbone, teacher_backbone, embed_dim = build_model_from_cfg(cfg)
        for block in student_backbone.block_list():
            block.activation_checkpointing = cfg.train.activation_checkpointing
        student, teacher = {"backbone": student_backbone}, {"backbone": teacher_backbone}
        student["dino_head"], teacher["dino_head"] = (build_head(cfg.dino, embed_dim) for _ in range(2))
        if self.ibot_separate_head:
            student["ibot_head"], teacher["ibot_head"] = (build_head(cfg.ibot, embed_dim) for _ in range(2))

        self.dino_loss = DINOLoss(cfg.dino.head_n_prototypes)
        if self.do_koleo:
            self.koleo_loss = KoLeoLoss() if cfg.dino.uniformity == "koleo" else KDELoss(cfg.dino.kde_concentration)
        if self.do_ibot:
            patch_head = cfg.ibot if self.ibot_separate_head else cfg.dino
            self.ibot_patch_loss = iBOTPatchLoss(patch_head.head_n_prototypes)
        self.student = nn.ModuleDict(student)
        self.teacher = nn.ModuleDict(teacher).requires_grad_(False)
        self.teacher.eval()
        for name in cfg.optim.frozen:
            if name in self.student:
                self.student[name].requires_grad_(False)
        # What forward passes of the student go through: the modules themselves, or their replicas.
        self._student_calls: dict[str, nn.Module] = dict(self.student.items())
        # What makes the targets. A frozen teacher is no submodule: it is no part of the state of a training.
        self._target_calls: dict[str, nn.Module] = dict(self.teacher.items())
        if distils(cfg):
            self._target_calls = dict(build_frozen_teacher(cfg, separate_head=self.ibot_separate_head).items())

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """A meta architecture has no forward pass of its own."""
        raise NotImplementedError("call forward_backward, or the backbone in .teacher or .student")

    def train(self, mode: bool = True) -> "SSLMetaArch":
        """Training mode for the student; the teacher never leaves evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def centers(self) -> list[Tensor]:
        """The centres of the losses, which forward passes move."""
        return [loss.center for loss in self.children() if isinstance(loss, CenteredLoss)]

    def trained_parts(self) -> dict[str, nn.Module]:
        """The submodules of the student that get gradients, by name."""
        return {name: module for name, module in self.student.items() if is_trained(module)}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.dino_loss.center.device

    def prepare_for_distributed_training(self, *, copy_student: bool = True) -> None:
        """Make all ranks start from rank 0's networks and spread these over the ranks.

        Afterwards a rank holds its part of what `compute_precision` shards; an optimiser has to be built on that.

        Args:
            copy_student: start the teacher from a copy of the student, whatever it is.
        """
        broadcast_from_first_rank(self.student)
        if copy_student:
            self.teacher.load_state_dict(self.student.state_dict())
        else:
            broadcast_from_first_rank(self.teacher)
        mesh = process_mesh(self.device)
        for name, module in self.student.items():
            self._student_calls[name] = parallelize(module, self._layout("student", name), mesh)
            parallelize(self.teacher[name], self._layout("teacher", name), mesh)
            if self._target_calls[name] is not self.teacher[name]:  # a frozen teacher, equal on all ranks
                parallelize(self._target_calls[name].to(self.device), self._layout("teacher", name), mesh)

    def gathered(self, network: str, name: str) -> AbstractContextManager[None]:
        """Whole weights of, say, the "teacher"'s "backbone" for the block, to call it unequally often on the ranks."""
        return gathered(self.get_submodule(f"{network}.{name}"), self._layout(network, name))

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Whether backward passes of the block average gradients over ranks, or add to those of each rank."""
        return gradient_sync(self._student_calls.values(), enabled=enabled)

    def forward_backward(
        self, images: Batch, teacher_temp: float, *, share: float = 1.0, observe: bool = False
    ) -> StepOutput:
        """Compute the losses of a batch and add their gradients to the student's.

        Args:
            images: what the loader's collation returns.
            teacher_temp: temperature of both kinds of targets.
            share: of this batch in the step, a factor of its gradients.
            observe: return what collapse shows in, too.
        """
        batch = self._to_device(images)
        targets = self.teacher_targets(batch, teacher_temp)
        predictions = self.student_predictions(batch)
        output = self.losses(predictions, targets, batch)
        objective = output.objective * share
        (self.fp16_scaler.scale(objective) if self.fp16_scaler else objective).backward()
        return replace(output.detach(), observation=Observation.of(targets, predictions) if observe else None)

    @torch.no_grad()
    def teacher_targets(self, batch: Mapping[str, Any], teacher_temp: float) -> Targets:
        """What the student has to predict, from unmasked global crops (G*B, C, H, W)."""
        features = self._call(self._target_calls, "backbone", batch["collated_global_crops"], is_training=True)
        # The halves change places, so that each student crop meets the teacher's view of the other one.
        first, second = features["x_norm_clstoken"].chunk(NUM_GLOBAL_CROPS)  # (B, D) each
        cls_tokens = torch.cat((second, first))  # (G*B, D)
        patches = self._masked_patches(features, batch) if self.do_ibot else None  # (n, D)
        cls_scores, patch_scores = self._scores(self._target_calls, cls_tokens, patches)
        cls_targets = self._cls_targets(cls_scores, teacher_temp)  # (G*B, K)
        patch_targets = None if patch_scores is None else self._patch_targets(patch_scores, batch, teacher_temp)
        by_crop = (NUM_GLOBAL_CROPS, -1)
        tokens = None if distils(self.cfg) else cls_tokens.unflatten(0, by_crop)
        return Targets(cls_targets.unflatten(0, by_crop), patch_targets, tokens)

    def student_predictions(self, batch: Mapping[str, Any]) -> Predictions:
        """Scores of masked global crops and of local crops, all through one pass of the backbone."""
        crops, masks = [batch["collated_global_crops"]], [batch["collated_masks"]]
        if self._num_local_crops(batch) > 0:
            crops.append(batch["collated_local_crops"])
            masks.append(None)
        features = self._call(self._student_calls, "backbone", crops, masks=masks, is_training=True)
        global_tokens = features[0]["x_norm_clstoken"]  # (G*B, D)
        local_tokens = [group["x_norm_clstoken"] for group in features[1:]]  # [(L*B, D)] or []
        patches = self._masked_patches(features[0], batch) if self.do_ibot else None  # (n, D)
        cls_scores, patch_scores = self._scores(self._student_calls, torch.cat((*local_tokens, global_tokens)), patches)
        *local_scores, global_scores = cls_scores.split([len(t) for t in (*local_tokens, global_tokens)])
        return Predictions(local_scores[0] if local_scores else None, global_scores, patch_scores, global_tokens)

    def losses(self, predictions: Predictions, targets: Targets, batch: Mapping[str, Any]) -> StepOutput:
        """The losses as DINOv2 displays them, and the sum that is optimised."""
        weights = self.cfg.dino
        num_locals = self._num_local_crops(batch)
        num_global_pairs = (NUM_GLOBAL_CROPS - 1) * NUM_GLOBAL_CROPS
        num_pairs = num_global_pairs + max(num_locals * NUM_GLOBAL_CROPS, 1)
        shown: dict[str, Tensor] = {}
        if predictions.local_cls is not None:
            local_crops = predictions.local_cls.chunk(num_locals)
            shown["dino_local_crops_loss"] = self.dino_loss(local_crops, targets.cls) / num_pairs
        # One mean over both crops stands for two pairs.
        global_loss = self.dino_loss([predictions.global_cls], [targets.cls.flatten(0, 1)])
        shown["dino_global_crops_loss"] = global_loss * num_global_pairs / num_pairs
        objective = weights.loss_weight * torch.stack(list(shown.values())).sum()
        if self.do_koleo:
            halves = predictions.global_tokens.chunk(NUM_GLOBAL_CROPS)  # never two views of one image together
            koleo = weights.koleo_loss_weight * sum(self.koleo_loss(tokens) for tokens in halves)
            objective = objective + koleo
            shown[f"{weights.uniformity}_loss"] = koleo / NUM_GLOBAL_CROPS
        if predictions.patches is not None and targets.patches is not None:
            ibot = self.ibot_patch_loss.forward_masked(
                predictions.patches,
                targets.patches,
                student_masks_flat=batch["collated_masks"],
                masks_weight=batch["masks_weight"],
            )
            objective = objective + self.cfg.ibot.loss_weight * ibot
            shown["ibot_loss"] = ibot / NUM_GLOBAL_CROPS
        return StepOutput(shown, objective)

    @torch.no_grad()
    def update_teacher(self, m: float) -> None:
        """teacher = m * teacher + (1 - m) * student, for every parameter; each rank moves its part."""
        torch._foreach_lerp_(local_parameters(self.teacher), local_parameters(self.student), 1.0 - m)

    def get_params_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups of the student, submodule after submodule."""
        return [
            {**group, "part": name}
            for name, module in self.student.items()
            for group in fuse_params_groups(
                get_params_groups_with_decay(
                    module,
                    lr_decay_rate=self.cfg.optim.layerwise_decay,
                    patch_embed_lr_mult=self.cfg.optim.patch_embed_lr_mult,
                )
            )
        ]

    def _layout(self, network: str, name: str) -> Layout:
        """Where the weights of a submodule of the student or the teacher are, as the configuration says."""
        section = self.cfg.compute_precision[network][name]
        dtypes = section.mixed_precision
        return Layout(
            section.sharding_strategy,
            param_dtype=compute_dtype(dtypes.param_dtype, self.device),
            reduce_dtype=compute_dtype(dtypes.reduce_dtype, self.device),
        )

    def _to_device(self, images: Batch) -> dict[str, Any]:
        """The batch where the model is, crops in the dtype that the student's backbone computes in."""
        dtype = self._layout("student", "backbone").param_dtype
        batch: dict[str, Any] = {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in images.items()
        }
        for key in ("collated_global_crops", "collated_local_crops"):
            batch[key] = batch[key].to(dtype)
        return batch

    def _call(self, modules: Mapping[str, nn.Module], name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a submodule of the student or of what makes targets in the dtype configured for it."""
        network = "student" if modules is self._student_calls else "teacher"
        dtype = self.cfg.compute_precision[network][name].mixed_precision.param_dtype
        with autocast(dtype, self.device):
            return modules[name](*args, **kwargs)

    def _scores(
        self, modules: Mapping[str, nn.Module], cls_tokens: Tensor, patches: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (., D), patches (n, D) -> scores (., K), (n, K); a shared head takes both in one call."""
        if patches is None:
            return self._call(modules, "dino_head", cls_tokens), None
        if self.ibot_separate_head:
            return self._call(modules, "dino_head", cls_tokens), self._call(modules, "ibot_head", patches)
        scores = self._call(modules, "dino_head", torch.cat((cls_tokens, patches)))
        return scores[: len(cls_tokens)], scores[len(cls_tokens) :]

    def _cls_targets(self, scores: Tensor, teacher_temp: float) -> Tensor:
        """Teacher scores (G*B, K) -> targets (G*B, K)."""
        if self.cfg.train.centering == "sinkhorn_knopp":
            return self.dino_loss.sinkhorn_knopp_teacher(scores, teacher_temp=teacher_temp)
        targets = self.dino_loss.softmax_center_teacher(scores, teacher_temp=teacher_temp)
        self.dino_loss.update_center(scores)
        return targets

    def _patch_targets(self, scores: Tensor, batch: Mapping[str, Any], teacher_temp: float) -> Tensor:
        """Teacher scores of masked patches (n, K) -> targets (n, K)."""
        if self.cfg.train.centering == "sinkhorn_knopp":
            return self.ibot_patch_loss.sinkhorn_knopp_teacher(
                scores, teacher_temp=teacher_temp, n_masked_patches_tensor=batch["n_masked_patches"]
            )
        targets = self.ibot_patch_loss.softmax_center_teacher(scores[None], teacher_temp=teacher_temp)[0]
        self.ibot_patch_loss.update_center(scores[None])
        return targets

    @staticmethod
    def _masked_patches(features: Mapping[str, Tensor], batch: Mapping[str, Any]) -> Tensor:
        """The masked ones (n, D) of patch tokens (G*B, N, D)."""
        return features["x_norm_patchtokens"].flatten(0, 1).index_select(0, batch["mask_indices_list"])

    @staticmethod
    def _num_local_crops(batch: Mapping[str, Any]) -> int:
        """L, from L*B local crops and G*B global crops."""
        return len(batch["collated_local_crops"]) * NUM_GLOBAL_CROPS // len(batch["collated_global_crops"])
