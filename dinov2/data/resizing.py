"""How images are resized: by Pillow, the width first and then the height.

DINOv2 was trained with Pillow's resize, which goes that way up to version 12. Since 13 it begins with the height where
that is less work, and as it rounds to 8 bits in between, a third of the crops of the same seed are others, by up to
25 grey levels. One direction at a time is equal to the bit under all of them, and takes no longer.
"""

from collections.abc import Sequence
from typing import TypeVar

from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

ImageOrTensor = TypeVar("ImageOrTensor", Image.Image, Tensor)


def resize(image: ImageOrTensor, size: Sequence[int], interpolation: transforms.InterpolationMode) -> ImageOrTensor:
    """The image, or tensor (..., H, W), in another size (height, width)."""
    height = functional.get_dimensions(image)[1]
    wide = functional.resize(image, [height, size[1]], interpolation)
    return functional.resize(wide, list(size), interpolation)


class RandomResizedCrop(transforms.RandomResizedCrop):
    """A random area of the image, resized; torchvision's draws."""

    def forward(self, img: ImageOrTensor) -> ImageOrTensor:
        """(3, H, W) or a picture to one of `size`; the area is drawn from torch's random generator."""
        area = functional.crop(img, *self.get_params(img, self.scale, self.ratio))
        return resize(area, self.size, self.interpolation)


class ResizeShorterSide(transforms.Resize):
    """The shorter side in a given size, the other one in proportion, rounded down as torchvision does."""

    def forward(self, img: ImageOrTensor) -> ImageOrTensor:
        """(3, H, W) or a picture to one whose shorter side is `size`, in the same proportions."""
        sides = functional.get_dimensions(img)[1:]
        return resize(img, [int(self.size * side / min(sides)) for side in sides], self.interpolation)
