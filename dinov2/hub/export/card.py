"""The model card: README.md, as Hugging Face and people read it. What is not known is left out or "not stated"."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dinov2
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import architecture_of, unchunked

from .check import NUM_TILES
from .facts import Facts
from .formats import ExportFormat, Notes
from .markdown import code, plain, table
from .scores import Evaluation

UNKNOWN = "not stated"
# Licences by the names that Hugging Face has for them.
_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nd-4.0"}
    | {"cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"}
)


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        difference: see `largest_difference`.
        files: SHA-256 by name.
        scores: of the training, as rows of a table whose first one is the header.
    """

    facts: Facts
    notes: Notes
    model: DinoVisionTransformer
    kind: ExportFormat
    difference: float
    files: Mapping[str, str]
    scores: Sequence[tuple[str, ...]] = ()
    evaluations: Sequence[Evaluation] = ()

    def text(self) -> str:
        """The whole card."""
        parts = (
            self._front_matter(),
            f"# {plain(self.facts.name)}",
            "A vision transformer that turns an image into a class token and one token for each patch.",
            *self._model(),
            *self._training(),
            *self._results(),
            "## Use",
            f"In the folder of this file, on a tile `tile.png`:\n\n```python\n{self.kind.usage(self.notes)}```",
            "What goes wrong without a word:\n\n"
            + self.kind.cautions.format(size=self.notes.image_size, patch=self.model.patch_size)
            + f"- {self.kind.other_sizes(self.model)}",
            "## Files",
            table([("file", "SHA-256"), *((f"`{name}`", f"`{digest}`") for name, digest in self.files.items())]),
            self._proof(),
            *self._configuration(),
        )
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        """What Hugging Face sorts models by."""
        library = self.kind.card_library
        lines = [f"library_name: {library}"] if library else []
        licence = self.facts.licence
        if licence.lower() in _LICENCES:
            lines.append(f"license: {licence.lower()}")
        elif licence:
            lines += ["license: other", f"license_name: {json.dumps(licence)}"]
        lines += ["pipeline_tag: image-feature-extraction", "tags: [dinov2, vision-transformer]"]
        return "\n".join(["---", *lines, "---"])

    def _model(self) -> list[str]:
        facts, size, width = self.facts, self.notes.image_size, self.model.embed_dim
        patches = (size // self.model.patch_size) ** 2
        rows = [
            ("architecture", self._architecture()),
            ("network", facts.network),
            ("parameters", f"{sum(tensor.numel() for tensor in self.model.parameters()):,}"),
            ("image", f"{size} x {size} pixels, RGB"),
            ("features", f"class token of {width} numbers; {patches} patch tokens of {width} each"),
            ("normalisation", f"(x - mean) / std for x in [0, 1]; mean {list(facts.mean)}, std {list(facts.std)}"),
            ("micrometres per pixel", plain(facts.mpp or UNKNOWN)),
            ("licence", plain(facts.licence or UNKNOWN)),
        ]
        return ["## Model", _facts_table(rows), *([plain(facts.notice)] if facts.notice else [])]

    def _architecture(self) -> str:
        """In words."""
        found = architecture_of({unchunked(name): tensor for name, tensor in self.model.state_dict().items()})
        name = found.arch or f"vision transformer of width {found.embed_dim} with {found.depth} blocks"
        details = [f"patches of {found.patch_size} pixels", "SwiGLU" if found.ffn_layer == "swiglu" else "MLP"]
        details += [f"{found.num_registers or 'no'} register tokens"]
        details += ["LayerScale"] if found.layerscale else []
        return f"{name}: {', '.join(details)}"

    def _training(self) -> list[str]:
        facts = self.facts
        iterations = "" if facts.iterations is None else f"{facts.iterations:,}"
        of_all = f" of {facts.planned:,}" if iterations and facts.planned is not None else ""
        rows = [
            ("data", code(facts.data) if facts.data else UNKNOWN),
            ("iterations", f"{iterations}{of_all}" or UNKNOWN),
            ("started from", plain(facts.start)),
        ]
        return ["## Training", _facts_table(rows)]

    def _results(self) -> list[str]:
        parts = ["## Results"]
        if self.scores:
            parts += ["During the training:", table([tuple(map(plain, row)) for row in self.scores])]
        for name, data, rows in self.evaluations:
            sets = "; ".join(f"{plain(one)}: {code(text)}" for one, text in data.items())
            parts += [f"Evaluation {code(name)} of these weights ({sets}); per cent, but for kappa:", rows.strip()]
        return parts if len(parts) > 1 else [*parts, f"{UNKNOWN.capitalize()}."]

    def _proof(self) -> str:
        """What was compared, and with what."""
        versions = {"dinov2-pathology": dinov2.__version__, "Python": platform.python_version(), **self.kind.versions()}
        return (
            f"Checked when it was made: class and patch tokens of {NUM_TILES} synthetic H&E tiles, computed with "
            f"{self.kind.loaded_by} from these files, differ from those of the model by at most {self.difference:.1e} "
            "of the largest number (float32, on a CPU). Made with "
            f"{', '.join(f'{name} {number}' for name, number in versions.items())}."
        )

    def _configuration(self) -> list[str]:
        """All settings of the training, folded."""
        if not self.facts.settings:
            return []
        lines = "".join(f"{name}: {json.dumps(value, default=str)}\n" for name, value in self.facts.settings)
        return ["## Configuration", f"<details>\n\n```yaml\n{lines}```\n\n</details>"]


def _facts_table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, without those that have none."""
    return table([("", ""), *(row for row in rows if row[1])])
