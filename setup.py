"""Installation: `pip install -e .` for training, `pip install -e ".[dev]"` for working on the code."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

EXTRAS = {
    "xformers": ["xformers"],
    "wandb": ["wandb"],
    "tensorboard": ["tensorboard"],
    "viz": ["matplotlib>=3.8", "jinja2"],
    "hdf5": ["h5py>=3.5"],
    "export": ["timm>=1.0.16", "transformers>=4.48", "onnx>=1.16", "onnxscript", "onnxruntime>=1.18"],
    "dev": [
        *("pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "pre-commit"),
        *("matplotlib", "tensorboard", "h5py>=3.5"),
        # Whose models exported and imported weights are compared with.
        *("timm>=1.0.16", "transformers>=4.48", "onnx>=1.16", "onnxscript", "onnxruntime>=1.18"),
    ],
}

setup(
    name="dinov2-pathology",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "dinov2" / "__init__.py").read_text()).group(1),
    description="DINOv2 for pathology: from slides to a published foundation model",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["dinov2", "dinov2.*"]),
    package_data={"dinov2": ["configs/*.yaml", "configs/*/*.yaml", "visualize/report/*.html"]},
    install_requires=[
        "torch>=2.10",
        "torchvision",
        "numpy",
        "pillow",
        "omegaconf>=2.3",
        "submitit",
        "torchmetrics",
        "scikit-learn",
        "safetensors",
        "tqdm",
        "opencv-python-headless",
    ],
    extras_require=EXTRAS,
)
