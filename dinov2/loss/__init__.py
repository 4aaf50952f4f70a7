"""What the student minimises: DINO on class tokens, iBOT on masked patches, KoLeo or KDE on the spread."""

from .dino_clstoken_loss import DINOLoss
from .ibot_patch_loss import iBOTPatchLoss
from .kde_loss import KDELoss
from .koleo_loss import KoLeoLoss

__all__ = ["DINOLoss", "KDELoss", "KoLeoLoss", "iBOTPatchLoss"]
