"""What trainings in these tests have in common."""

import fvcore.nn  # noqa: F401  # here, so that no forked process takes the time to import it
import pytest
import sklearn.metrics  # noqa: F401  # likewise

from dinov2.models import vision_transformer


@pytest.fixture(autouse=True)
def vit_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer of two narrow blocks, so that several ranks take a step in a fraction of a second."""

    def build(patch_size=16, num_register_tokens=0, **kwargs):
        return vision_transformer._vit(48, 2, 2, patch_size, num_register_tokens, kwargs)

    monkeypatch.setitem(vision_transformer.ARCHITECTURES, "vit_mini", build)
