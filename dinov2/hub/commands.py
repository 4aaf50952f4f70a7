"""The subcommands of `python -m dinov2.hub`, which import what is slow when they are run."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .export import command as export_command
from .registry import find, published


@dataclass(frozen=True)
class Command:
    """A subcommand: what it is for, its arguments, and what it does."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], None]


def _list(args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([asdict(entry) for entry in published().values()], indent=1))
        return
    rows = [("name", "architecture", "parameters", "image", "mpp", "licence", "trained on")]
    for entry in published().values():
        settings = entry.settings
        arch = f"{settings['student.arch']}/{settings['student.patch_size']}" if settings else entry.kind
        image = f"{entry.image_size} px" if entry.image_size else ""
        licence = f"{entry.licence}{' (by hand)' if entry.by_hand else ''}"
        size = f"{entry.parameters / 1e6:,.1f} M" if entry.parameters else ""
        rows.append((entry.name, arch, size, image, entry.mpp, licence, entry.data))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _show(args: argparse.Namespace) -> None:
    for name, value in asdict(find(args.name)).items():
        if value:
            shown = value if isinstance(value, str | int) else json.dumps(value)
            print(f"{name:12} {shown}")
    print(f"\n{find(args.name).notice}")


def _download(args: argparse.Namespace) -> None:
    from .resolve import resolve_weights

    for name in args.names:
        print(resolve_weights(name, offline=args.offline or None))


def _inspect(args: argparse.Namespace) -> None:
    from dinov2.models.weights import architecture_of, read_networks

    from .resolve import resolve_weights

    file = read_networks(resolve_weights(args.file, offline=args.offline or None))
    for name, network in file.networks.items():
        heads = ", ".join(f"{head} of {len(state)} tensors" for head, state in network.heads.items())
        count = sum(tensor.numel() for tensor in network.backbone.values())
        if network.backbone:
            print(f"{name or 'backbone'}: {architecture_of(network.backbone)}, with {network.dialect}'s names")
            print(f"    {len(network.backbone)} tensors, {count:,} parameters")
        print(f"    heads: {heads or 'none'}")
    if file.left_out:
        print(f"{len(file.left_out)} tensors of no network, such as {file.left_out[0]}")


def _file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a file, a checkpoint folder, a name of the list, or an https address")
    _add_offline(parser)


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the list, or an https address")
    _add_offline(parser)


def _add_offline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="use what is there and no network, as DINOV2_OFFLINE=1")


COMMANDS: dict[str, Command] = {
    "list": Command(
        "all published weights that are known",
        lambda parser: parser.add_argument("--json", action="store_true", help="all fields, for programs"),
        _list,
    ),
    "show": Command("what is known about weights", lambda parser: parser.add_argument("name"), _show),
    "download": Command("fetch weights for later", _download_arguments, _download),
    "inspect": Command("what a file of weights has", _file_arguments, _inspect),
    "export": Command("write a backbone for another library", export_command.add_arguments, export_command.run),
}
