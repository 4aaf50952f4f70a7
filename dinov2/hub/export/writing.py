"""The way of an export: find, load, write aside, compare, describe, and only then put in place."""

from pathlib import Path

from dinov2.errors import UserError, unknown_name
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.utils.atomic import atomic_path, fsync
from dinov2.utils.checkpoint.files import hash_file
from dinov2.utils.locks import locked
from dinov2.utils.outputs import try_folder

from .card import Card
from .check import check_equal, demo_tiles, largest_difference
from .facts import gather_facts
from .formats import ExportFormat, Notes
from .kinds import FORMATS
from .model import image_size_of, load_model
from .origin import find_origin
from .request import Request
from .scores import evaluations, training_scores
from .tokens import TokenModel

CARD = "README.md"


def export_weights(request: Request) -> float:
    """Make the folder of an export; if anything is wrong, nothing is left of it.

    Returns:
        The largest difference from what the other library computes, see `largest_difference`.
    Raises:
        UserError: if the weights, the library or the place for it are not there, or something is not known.
        MismatchError: if the library does not compute the same features.
    """
    kind = _checked_format(request)
    with locked(request.output.with_name(f".{request.output.name}.lock")):
        _refuse_existing(request.output)  # made by another command while this one waited
        return _make(request, kind)


def _make(request: Request, kind: ExportFormat) -> float:
    origin = find_origin(request)
    results = evaluations(origin, request.results)
    network, model = load_model(origin, request.network, image_size=request.image_size, num_heads=request.num_heads)
    facts = gather_facts(request, origin, network)
    notes = Notes(
        image_size=image_size_of(model),
        num_heads=model.num_heads,
        mean=facts.mean,
        std=facts.std,
        facts={**facts.metadata, "source_sha256": origin.digest},
    )
    with atomic_path(request.output.resolve()) as folder:  # a link to an empty folder stays
        folder.mkdir()
        kind.write(model, folder, notes)
        difference = _compare(model, kind, folder, notes)
        card = Card(
            facts,
            notes,
            model,
            kind,
            difference=difference,
            files={path.name: hash_file(path).sha256 for path in sorted(folder.iterdir())},
            scores=training_scores(origin, network),
            evaluations=results,
        )
        (folder / CARD).write_text(card.text(), encoding="utf-8")
        for path in folder.iterdir():
            path.chmod((folder / CARD).stat().st_mode)  # safetensors writes files that only their owner can read
            fsync(path)
    return difference


def _checked_format(request: Request) -> ExportFormat:
    """The format asked for, when it can be made and there is room for it."""
    if request.kind not in FORMATS:
        raise unknown_name("--to", request.kind, FORMATS)
    _refuse_existing(request.output)
    kind = FORMATS[request.kind]
    kind.require()
    try_folder(request.output.parent)
    return kind


def _refuse_existing(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is there already; name a new folder")
    if output.is_mount() or output.resolve() == Path.cwd():  # a folder is put in place as a whole
        raise UserError(f"--output {output} is a mount or the current folder; name a new folder in it")


def _compare(model: DinoVisionTransformer, kind: ExportFormat, folder: Path, notes: Notes) -> float:
    images = demo_tiles(notes.image_size, notes.mean, notes.std)  # (B, 3, S, S)
    difference = largest_difference(TokenModel(model), kind.load(folder), images)
    check_equal(difference, kind.loaded_by)
    return difference
