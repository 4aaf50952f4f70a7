"""What all evaluation commands share: settings in force, data sets, results."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from dinov2 import distributed
from dinov2.configs.validate_tune import evaluates
from dinov2.data.worker_count import image_bytes, usable_workers
from dinov2.data.worker_setup import explained_worker_losses
from dinov2.distributed.outcomes import on_main
from dinov2.errors import Mistakes, UserError
from dinov2.logging import setup_logging
from dinov2.utils.outputs import try_file, try_folder

from .choices import CROP
from .features import Extraction
from .labelled import LabelledSet, match_sets, open_labelled
from .results import Row, markdown_table, write_results
from .settings import EvaluationKeys, load_settings
from .subject import Subject
from .tokens import check_blocks
from .unused import unused_flags

logger = logging.getLogger("dinov2")


def named_tests(strings: Sequence[str]) -> list[tuple[str, str]]:
    """(name, data set string) of --test-datasets."""
    return [(f"test {number}", string) for number, string in enumerate(strings, start=1)]


@dataclass(frozen=True)
class Evaluation:
    """The settings of a command in force."""

    name: str
    args: argparse.Namespace
    keys: EvaluationKeys
    subject: Subject

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.args.output_dir)

    @property
    def device(self) -> torch.device:
        """Where features are compared and classifiers trained."""
        return distributed.get_device()

    @property
    def num_workers(self) -> int:
        """Processes that decode, as many as there is room for."""
        return usable_workers(
            self.keys.speed.num_workers,
            key="--num-workers",
            batch_bytes=image_bytes(self.subject.crop_size) * self.keys.data.batch_size,
        )

    @property
    def extraction(self) -> Extraction:
        """How features are computed and where they are kept."""
        return Extraction(
            batch_size=self.keys.data.batch_size,
            num_workers=self.num_workers,
            on_cpu=self.keys.speed.gather_on_cpu,
            folder=self.folder / "features" if self.args.features_on_disk else None,
        )

    def open_sets(self, others: Sequence[tuple[str, str | None]]) -> list[LabelledSet]:
        """Open the set to learn from and others that are scored, and check them against each other.

        Args:
            others: (name, string) of each; those without a string are left out.
        Raises:
            UserError: if one cannot be used, or they do not fit each other.
        """
        train = self.keys.data.query_dataset
        if not train:
            raise UserError("there is nothing to learn from: name labelled tiles with --train-dataset")
        sets = [
            open_labelled(
                name,
                string,
                transform=self.subject.eval_transform(),
                group_by=self.args.group_by,
                max_pixels=self.subject.cfg.data.max_pixels,
            )
            for name, string in (("train", train), *others)
            if string
        ]
        return [sets[0], *match_sets(sets[0], sets[1:], allow_missing_classes=self.args.allow_missing_classes)]

    def finish(self, sets: Sequence[LabelledSet], rows: Sequence[Row], **settings: Any) -> None:
        """Write and show the results.

        Args:
            settings: of this kind of evaluation, for the record.
        """
        record = {
            "evaluation": self.name,
            **self.subject.record(self.args.features),
            "data": {one.name: one.summary() for one in sets},
            "settings": {"seed": self.args.seed, "resamples": self.args.resamples, **settings},
            "processes": distributed.get_global_size(),
        }
        logger.info(f"{self.name} evaluation\n\n{markdown_table(rows)}")  # also where files cannot be written
        write_results(self.folder, self.name, record, rows)
        logger.info(f"results are in {self.folder / f'evaluation_{self.name}'}.json, .csv and .md")


def read_settings(args: argparse.Namespace) -> tuple[EvaluationKeys, Subject]:
    """The settings in force and the model that they describe, which is not built yet.

    Args:
        args: of `base_parser`, and `n_last_blocks`, a number or several.
    Raises:
        UserError: for settings that are not right.
    """
    mistakes = Mistakes()
    cfg, keys = load_settings(args, mistakes)
    subject = Subject(
        cfg,
        weights_file=cfg.student.pretrained_weights,
        untrained_seed=args.seed if args.untrained else None,
        **image_sizes(args, cfg, keys),
    )
    with mistakes.collecting():
        subject.check(args.features)
        blocks = args.n_last_blocks
        check_blocks([blocks] if isinstance(blocks, int) else blocks, available=subject.num_blocks)
    mistakes.refuse()
    return keys, subject


def image_sizes(args: argparse.Namespace, cfg: DictConfig, keys: EvaluationKeys) -> dict[str, int]:
    """`resize_size` and `crop_size`: as flags say, else of the run whose configuration this is, else the usual ones.

    A run that scores itself while it trains has sizes for that. Those of another follow from its global crops, with
    the usual margin around them.
    """
    resize, crop = getattr(args, "usual_resize", None) or keys.data.resize_size, CROP
    if is_run(cfg) and not args.crop_size:
        if evaluates(cfg.tune):
            resize, crop = cfg.tune.tile_size, cfg.tune.crop_size
        else:
            resize, crop = round(resize * cfg.crops.global_crops_size / CROP), cfg.crops.global_crops_size
    return {"resize_size": args.resize_size or resize, "crop_size": args.crop_size or crop}


def is_run(cfg: DictConfig) -> bool:
    """Whether a configuration is the config.yaml of a run, which names its folder."""
    return bool(cfg.train.output_dir != ".")


def _say(name: str, args: argparse.Namespace, keys: EvaluationKeys, subject: Subject) -> None:
    """How images are shown to the model, and what was given without effect."""
    mean, std = (list(subject.cfg.augmentation[name]) for name in ("mean", "std"))
    owner = f", as {args.config_file} has it" if is_run(subject.cfg) else ""
    logger.info(
        f"images: shorter side {subject.resize_size} px, of which {subject.crop_size} px are cut out, patches of "
        f"{subject.cfg.student.patch_size} px, mean {mean}, std {std}{owner}; --resize-size and --crop-size set sizes"
    )
    if is_run(subject.cfg) and subject.weights_file and not args.pretrained_weights:
        logger.warning(
            f"the weights are {subject.weights_file}, which the run started from, and not what it learnt: name an "
            "export of it with --pretrained-weights"
        )
    for line in unused_flags(name, args, keys):
        logger.warning(line)


def _try_outputs(args: argparse.Namespace) -> None:
    """Find out before the model runs that what it gives could not be written."""
    try_folder(Path(args.output_dir))
    if args.features is not None and not args.features.is_file():
        try_file(args.features)


@contextmanager
def evaluation(name: str, args: argparse.Namespace) -> Iterator[Evaluation]:
    """Read the settings, join the other processes, unless the caller has, and log; leave them at the end.

    Raises:
        UserError: for settings that are not right.
    """
    keys, subject = read_settings(args)
    joins = not distributed.is_enabled()
    if joins:
        distributed.enable()
    try:
        on_main(lambda: _try_outputs(args))
        setup_logging(args.output_dir)
        _say(name, args, keys, subject)
        with explained_worker_losses():
            yield Evaluation(name, args, keys, subject)
    finally:
        if joins:
            distributed.disable()
