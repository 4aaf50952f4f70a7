"""Imports point down the line of layers of docs/architecture.md, also those inside functions."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import dinov2

PACKAGE = Path(dinov2.__file__).parent
# From the ground up; parts of one floor do not import each other unless listed so.
FLOORS = (
    ("errors",),
    ("configs",),
    ("distributed",),
    ("logging",),
    ("utils",),
    ("layers", "loss", "data"),
    ("models",),
    ("fsdp", "hub"),
    ("eval",),
    ("train",),
    ("visualize",),
    ("hub.export",),
    ("run",),
)
FLOOR_OF = {part: number for number, floor in enumerate(FLOORS) for part in floor}
# One command line for the hub and its sub-command.
ALLOWED = {("dinov2.hub.commands", "dinov2.hub.export.command")}


def part_of(module: str) -> str | None:
    """The part of the house that a module is in; None for the package's own `__init__`."""
    names = module.split(".")[1:]
    if names[:2] == ["hub", "export"]:
        return "hub.export"
    return names[0] if names else None


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, or that it imports from."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{source}.{alias.name}" for alias in node.names)


def arrows() -> Iterator[tuple[str, str]]:
    """Every import of something by a module of a different part."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = module_of(path)
        for other in imports(path):
            if other.startswith("dinov2.") and part_of(other) != part_of(module):
                yield module, other


def test_every_part_has_a_floor():
    parts = {part_of(module) for arrow in arrows() for module in arrow} - {None, "__version__"}
    assert parts <= set(FLOOR_OF)


def test_no_import_points_up():
    up = [
        f"{module} imports {other}"
        for module, other in arrows()
        if (module, other) not in ALLOWED
        and part_of(module) is not None
        and FLOOR_OF[part_of(other)] >= FLOOR_OF[part_of(module)]
    ]
    assert up == []
