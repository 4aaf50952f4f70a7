"""The closed, typed schema of a training configuration.

Types, ranges and choices live here; values and what each key means live in `ssl_default_config.yaml`. A key that is
missing on either side is an error, so the two cannot drift apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from omegaconf import MISSING

PARTS = ("backbone", "dino_head", "ibot_head")  # of student and teacher
LARGEST = 10**9  # for numbers that have no other limit


def number(least: float, most: float = LARGEST) -> Any:
    """A number, or several, each from `least` to `most`."""
    return field(default=MISSING, metadata={"range": (least, most)})


def choice(*names: str) -> Any:
    """One of these names, or several of them."""
    return field(default=MISSING, metadata={"names": names})


@dataclass
class ModelConfig:
    WEIGHTS: str = MISSING


@dataclass
class MixedPrecisionConfig:
    param_dtype: str = choice("auto", "fp32", "fp16", "bf16")
    reduce_dtype: str = choice("auto", "fp32", "fp16", "bf16")
    buffer_dtype: str = choice("auto", "fp32", "fp16", "bf16")


@dataclass
class ModulePrecisionConfig:
    sharding_strategy: str = choice("NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD")
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
    loss_weight: float = number(0)
    head_n_prototypes: int = number(1)
    head_bottleneck_dim: int = number(1)
    head_nlayers: int = number(1, 100)
    head_hidden_dim: int = number(1)
    koleo_loss_weight: float = number(0)
    uniformity: str = choice("koleo", "kde")
    kde_concentration: float = number(0.001)


@dataclass
class IbotConfig:
    loss_weight: float = number(0)
    mask_sample_probability: float = number(0, 1)
    mask_ratio_min_max: list[float] = number(0, 1)
    separate_head: bool = MISSING
    head_n_prototypes: int = number(1)
    head_bottleneck_dim: int = number(1)
    head_nlayers: int = number(1, 100)
    head_hidden_dim: int = number(1)


@dataclass
class TrainConfig:
    batch_size_per_gpu: int = number(1)
    gradient_accumulation_factor: int = number(1)
    activation_checkpointing: bool = MISSING
    dataset_path: Any = MISSING  # a string or a list of strings, of which OmegaConf has no type
    output_dir: str = MISSING
    saveckp_freq: int = number(0)
    save_frequency: float = number(0)
    keep_last: int = number(0)
    keep_every: int | None = number(1)
    async_checkpoint: bool | None = MISSING
    on_save_error: str = choice("continue", "stop")
    on_nonfinite: str = choice("stop", "skip")
    max_nonfinite_steps: int = number(1)
    indicators_every: int = number(0)
    seed: int = number(0, 2**32 - 1)
    deterministic: bool = MISSING
    num_workers: int = number(0)
    step_timeout: float = number(0)
    data_timeout: float = number(0)
    evaluation_timeout: float = number(0)
    save_timeout: float = number(0)
    OFFICIAL_EPOCH_LENGTH: int | None = number(1)
    cache_dataset: bool = MISSING
    centering: str = choice("centering", "sinkhorn_knopp")


@dataclass
class StudentConfig:
    arch: str = MISSING
    patch_size: int = number(1, 1024)
    drop_path_rate: float = number(0, 0.999)
    layerscale: float | None = number(0, 100)
    drop_path_uniform: bool = MISSING
    pretrained_weights: str = MISSING
    pretrained_network: str = choice("teacher", "student")
    pretrained_positions: str = choice("interpolate", "center_cut")
    pretrained_allow: list[str] = choice("registers", "layerscale", "partial")
    ffn_layer: str = choice("mlp", "swiglu", "swiglufused", "identity")
    block_chunks: int = number(0)
    qkv_bias: bool = MISSING
    proj_bias: bool = MISSING
    ffn_bias: bool = MISSING
    num_register_tokens: int = number(0)
    interpolate_antialias: bool = MISSING
    interpolate_offset: float = number(0, 1)
    attention_backend: str = choice("sdpa", "xformers")


@dataclass
class HeadConfig:
    head_path: str = MISSING
    load: list[str] = choice(*PARTS)
    start_iteration: int | None = number(0)


@dataclass
class DistillationConfig:
    config_file: str = MISSING
    weights: str = MISSING


@dataclass
class TeacherConfig:
    momentum_teacher: float = number(0, 1)
    final_momentum_teacher: float = number(0, 1)
    warmup_teacher_temp: float = number(1e-4, 1000)
    teacher_temp: float = number(1e-4, 1000)
    warmup_teacher_temp_epochs: float | None = number(0)
    warmup_teacher_temp_pct: float | None = number(0, 1)


@dataclass
class OptimConfig:
    epochs: float = number(0, 10**6)
    max_iter: int | None = number(1, 10**8)
    weight_decay: float = number(0, 100)
    weight_decay_end: float = number(0, 100)
    base_lr: float = number(0, 1000)
    lr: float = number(0, 1000)
    warmup_epochs: float | None = number(0)
    warmup_pct: float | None = number(0, 1)
    min_lr: float = number(0, 1000)
    clip_grad: float = number(0)
    freeze_last_layer_epochs: float | None = number(0)
    freeze_last_layer_pct: float | None = number(0, 1)
    freeze_backbone_iterations: int = number(0)
    frozen: list[str] = choice(*PARTS)
    scaling_rule: str = choice("sqrt_wrt_1024", "linear_wrt_256", "none")
    patch_embed_lr_mult: float = number(0, 1000)
    layerwise_decay: float = number(0, 1)
    adamw_beta1: float = number(0, 0.99999)
    adamw_beta2: float = number(0, 0.999999)


@dataclass
class CropsConfig:
    global_crops_scale: list[float] = number(0, 1)
    local_crops_number: int = number(0)
    local_crops_scale: list[float] = number(0, 1)
    global_crops_size: int = number(1, 65536)
    local_crops_size: int = number(1, 65536)


@dataclass
class DataConfig:
    on_bad_tile: str = choice("replace", "raise")
    max_bad_share: float = number(0, 1)
    draw_by: str = choice("tile", "slide", "cohort", "dataset")
    draw_weights: Any = MISSING  # a word, a number, or numbers by name
    max_pixels: int = number(1, 178_956_970)  # twice Image.MAX_IMAGE_PIXELS, which Pillow takes for an attack


@dataclass
class AugmentationConfig:
    horizontal_flip: float = number(0, 1)
    vertical_flip: float = number(0, 1)
    color_jitter: float = number(0, 1)
    grayscale: float = number(0, 1)
    solarize_global_2: float = number(0, 1)
    blur_global_1: float = number(0, 1)
    blur_global_2: float = number(0, 1)
    blur_local: float = number(0, 1)
    brightness: float = number(0)
    contrast: float = number(0)
    saturation: float = number(0)
    hue: float = number(0, 0.5)
    mean: list[float] = number(-100, 100)
    std: list[float] = number(0, 100)


@dataclass
class EvaluationConfig:
    eval_period_iterations: int = number(0)
    export_student: bool = MISSING


@dataclass
class KnnConfig:
    nb_knn: list[int] = number(1)
    temperature: float = number(1e-4, 1000)
    batch_size: int = number(1)
    n_per_class_list: list[int] = number(-1)
    n_tries: int = number(1)
    gather_on_cpu: bool = MISSING


@dataclass
class LinearConfig:
    n_last_blocks: list[int] = number(1)
    batch_size: int = number(1)
    iterations: int = number(1)


@dataclass
class EarlyStoppingConfig:
    enable: bool = MISSING
    tracking: str = MISSING
    min_max: str = choice("min", "max")
    patience_pct: float = number(0, 1)
    min_epoch_pct: float = number(0, 1)


@dataclass
class TuneConfig:
    query_dataset_path: str | None = MISSING
    test_dataset_path: str | None = MISSING
    datasets: dict[str, Any] = MISSING  # names of the user's own
    allow_overlap: list[str] = MISSING
    probes: list[str] = MISSING
    student: bool = MISSING
    tune_every_pct: float | None = number(0)
    tune_every_iterations: int | None = number(0)
    tile_size: int = number(1, 65536)
    crop_size: int = number(1, 65536)
    knn: KnnConfig = field(default_factory=KnnConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    resamples: int = number(0)
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


class Row(NamedTuple):
    """A key of the schema."""

    key: str
    kind: Any  # its type
    range: tuple[float, float] | None
    names: tuple[str, ...] | None


def rows(section: type = Config, prefix: str = "") -> Iterator[Row]:
    """All keys by their dotted names."""
    kinds = get_type_hints(section)
    for one in fields(section):
        key, kind = f"{prefix}{one.name}", kinds[one.name]
        if is_dataclass(kind):
            yield from rows(kind, f"{key}.")  # type: ignore[arg-type]
        else:
            yield Row(key, kind, one.metadata.get("range"), one.metadata.get("names"))
