"""DINOv2 for pathology: from slides to a published foundation model."""

__version__ = "0.1.0"
