"""The configuration of a run, as its file has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Settings:
    """A configuration: plain values by dotted name, the text of its file, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    fault: str = ""


def read_settings(path: Path) -> Settings:
    """The settings in a file of any version of this program or of DINOv2; nothing in it is checked."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Settings(fault="is missing: what the run was told is not known")
    try:
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # of the YAML parser and of OmegaConf, which have no common type
        return Settings(text=text, fault=f"cannot be read ({type(error).__name__})")
    if not isinstance(content, dict):
        return Settings(text=text, fault="holds no settings")
    return Settings(flatten(content), text)


def flatten(section: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; a list is one value, and so is an empty section."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value})
    return flat
