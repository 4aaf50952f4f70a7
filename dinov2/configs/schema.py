"""The closed, typed schema of a training configuration.

Types live here; values and what each key means live in `ssl_default_config.yaml`. A key that is
missing on either side is an error, so the two cannot drift apart.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class ModelConfig:
    WEIGHTS: str = MISSING


@dataclass
class MixedPrecisionConfig:
    param_dtype: str = MISSING
    reduce_dtype: str = MISSING
    buffer_dtype: str = MISSING


@dataclass
class ModulePrecisionConfig:
    sharding_strategy: str = MISSING
    mixed_precision: MixedPrecisionConfig = field(default_factory=MixedPrecisionConfig)


@dataclass
class NetworkPrecisionConfig:
    backbone: ModulePrecisionConfig = field(default_factory=ModulePrecisionConfig)
    dino_head: ModulePrecisionConfig = field(default_factory=ModulePrecisionConfig)
    ibot_head: ModulePrecisionConfig = field(default_factory=ModulePrecisionConfig)


@dataclass
class ComputePrecisionConfig:
    grad_scaler: bool = MISSING
    teacher: NetworkPrecisionConfig = field(default_factory=NetworkPrecisionConfig)
    student: NetworkPrecisionConfig = field(default_factory=NetworkPrecisionConfig)


@dataclass
class DinoConfig:
    loss_weight: float = MISSING
    head_n_prototypes: int = MISSING
    head_bottleneck_dim: int = MISSING
    head_nlayers: int = MISSING
    head_hidden_dim: int = MISSING
    koleo_loss_weight: float = MISSING
    uniformity: str = MISSING
    kde_concentration: float = MISSING


@dataclass
class IbotConfig:
    loss_weight: float = MISSING
    mask_sample_probability: float = MISSING
    mask_ratio_min_max: list[float] = MISSING
    separate_head: bool = MISSING
    head_n_prototypes: int = MISSING
    head_bottleneck_dim: int = MISSING
    head_nlayers: int = MISSING
    head_hidden_dim: int = MISSING


@dataclass
class TrainConfig:
    batch_size_per_gpu: int = MISSING
    gradient_accumulation_factor: int = MISSING
    activation_checkpointing: bool = MISSING
    dataset_path: Any = MISSING  # a string or a list of strings, of which OmegaConf has no type
    output_dir: str = MISSING
    saveckp_freq: int = MISSING
    save_frequency: float = MISSING
    keep_last: int = MISSING
    keep_every: int | None = MISSING
    async_checkpoint: bool | None = MISSING
    on_save_error: str = MISSING
    on_nonfinite: str = MISSING
    max_nonfinite_steps: int = MISSING
    indicators_every: int = MISSING
    seed: int = MISSING
    deterministic: bool = MISSING
    num_workers: int = MISSING
    step_timeout: float = MISSING
    data_timeout: float = MISSING
    evaluation_timeout: float = MISSING
    save_timeout: float = MISSING
    OFFICIAL_EPOCH_LENGTH: int | None = MISSING
    cache_dataset: bool = MISSING
    centering: str = MISSING


@dataclass
class StudentConfig:
    arch: str = MISSING
    patch_size: int = MISSING
    drop_path_rate: float = MISSING
    layerscale: float | None = MISSING
    drop_path_uniform: bool = MISSING
    pretrained_weights: str = MISSING
    pretrained_network: str = MISSING
    pretrained_positions: str = MISSING
    pretrained_allow: list[str] = MISSING
    ffn_layer: str = MISSING
    block_chunks: int = MISSING
    qkv_bias: bool = MISSING
    proj_bias: bool = MISSING
    ffn_bias: bool = MISSING
    num_register_tokens: int = MISSING
    interpolate_antialias: bool = MISSING
    interpolate_offset: float = MISSING
    attention_backend: str = MISSING


@dataclass
class HeadConfig:
    head_path: str = MISSING
    load: list[str] = MISSING
    start_iteration: int | None = MISSING


@dataclass
class DistillationConfig:
    config_file: str = MISSING
    weights: str = MISSING


@dataclass
class TeacherConfig:
    momentum_teacher: float = MISSING
    final_momentum_teacher: float = MISSING
    warmup_teacher_temp: float = MISSING
    teacher_temp: float = MISSING
    warmup_teacher_temp_epochs: float | None = MISSING
    warmup_teacher_temp_pct: float | None = MISSING


@dataclass
class OptimConfig:
    epochs: float = MISSING
    max_iter: int | None = MISSING
    weight_decay: float = MISSING
    weight_decay_end: float = MISSING
    base_lr: float = MISSING
    lr: float = MISSING
    warmup_epochs: float | None = MISSING
    warmup_pct: float | None = MISSING
    min_lr: float = MISSING
    clip_grad: float = MISSING
    freeze_last_layer_epochs: float | None = MISSING
    freeze_last_layer_pct: float | None = MISSING
    freeze_backbone_iterations: int = MISSING
    frozen: list[str] = MISSING
    scaling_rule: str = MISSING
    patch_embed_lr_mult: float = MISSING
    layerwise_decay: float = MISSING
    adamw_beta1: float = MISSING
    adamw_beta2: float = MISSING


@dataclass
class CropsConfig:
    global_crops_scale: list[float] = MISSING
    local_crops_number: int = MISSING
    local_crops_scale: list[float] = MISSING
    global_crops_size: int = MISSING
    local_crops_size: int = MISSING


@dataclass
class DataConfig:
    on_bad_tile: str = MISSING
    max_bad_share: float = MISSING
    draw_by: str = MISSING
    draw_weights: Any = MISSING  # a word, a number, or numbers by name
    max_pixels: int = MISSING


@dataclass
class AugmentationConfig:
    horizontal_flip: float = MISSING
    vertical_flip: float = MISSING
    color_jitter: float = MISSING
    grayscale: float = MISSING
    solarize_global_2: float = MISSING
    blur_global_1: float = MISSING
    blur_global_2: float = MISSING
    blur_local: float = MISSING
    brightness: float = MISSING
    contrast: float = MISSING
    saturation: float = MISSING
    hue: float = MISSING
    mean: list[float] = MISSING
    std: list[float] = MISSING


@dataclass
class EvaluationConfig:
    eval_period_iterations: int = MISSING
    export_student: bool = MISSING


@dataclass
class KnnConfig:
    nb_knn: list[int] = MISSING
    temperature: float = MISSING
    batch_size: int = MISSING
    n_per_class_list: list[int] = MISSING
    n_tries: int = MISSING
    gather_on_cpu: bool = MISSING


@dataclass
class LinearConfig:
    n_last_blocks: list[int] = MISSING
    batch_size: int = MISSING
    iterations: int = MISSING


@dataclass
class EarlyStoppingConfig:
    enable: bool = MISSING
    tracking: str = MISSING
    min_max: str = MISSING
    patience_pct: float = MISSING
    min_epoch_pct: float = MISSING


@dataclass
class TuneConfig:
    query_dataset_path: str | None = MISSING
    test_dataset_path: str | None = MISSING
    datasets: dict[str, Any] = MISSING  # names of the user's own
    allow_overlap: list[str] = MISSING
    probes: list[str] = MISSING
    student: bool = MISSING
    tune_every_pct: float | None = MISSING
    tune_every_iterations: int | None = MISSING
    tile_size: int = MISSING
    crop_size: int = MISSING
    knn: KnnConfig = field(default_factory=KnnConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    resamples: int = MISSING
    keep_best: bool = MISSING
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)


@dataclass
class TensorboardConfig:
    enable: bool = MISSING


@dataclass
class WandbConfig:
    enable: bool = MISSING
    project: str = MISSING
    username: str = MISSING
    exp_name: str = MISSING
    tags: list[str] = MISSING
    dir: str | None = MISSING
    group: str | None = MISSING
    resume_id: str | None = MISSING


@dataclass
class Config:
    """Everything a run can be told."""

    MODEL: ModelConfig = field(default_factory=ModelConfig)
    compute_precision: ComputePrecisionConfig = field(default_factory=ComputePrecisionConfig)
    dino: DinoConfig = field(default_factory=DinoConfig)
    ibot: IbotConfig = field(default_factory=IbotConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    crops: CropsConfig = field(default_factory=CropsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    tensorboard: TensorboardConfig = field(default_factory=TensorboardConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
