"""How images are resized: by Pillow, the width first and then the height.

DINOv2 was trained with Pillow's resize, which goes that way up to version 12. Since 13 it begins with the height where
that is less work, and as it rounds to 8 bits in between, a third of the crops of the same seed are others, by up to
25 grey levels. One direction at a time is equal to the bit under all of them, and takes no longer.
"""

from collections.abc import Sequence

from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional


def resize(image: Image.Image, size: Sequence[int], interpolation: transforms.InterpolationMode) -> Image.Image:
    """The image in another size (height, width)."""
    wide = functional.resize(image, [image.height, size[1]], interpolation)
    return functional.resize(wide, list(size), interpolation)


class RandomResizedCrop(transforms.RandomResizedCrop):
    """A random area of the image, resized; torchvision's draws."""

    def forward(self, img: Image.Image) -> Image.Image:
        """Draw the area from torch's random generator."""
        area = functional.crop(img, *self.get_params(img, self.scale, self.ratio))
        return resize(area, self.size, self.interpolation)


class ResizeShorterSide(transforms.Resize):
    """The shorter side in a given size, the other one in proportion, rounded down as torchvision does."""

    def forward(self, img: Image.Image) -> Image.Image:
        """Keep the ratio of the sides."""
        shorter = min(img.size)
        return resize(img, [int(self.size * side / shorter) for side in (img.height, img.width)], self.interpolation)
