"""Cut an image into patches and project each to a token (Dosovitskiy et al. 2021)."""

from collections.abc import Callable

from torch import Tensor, nn


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size in pixels as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class PatchEmbed(nn.Module):
    """Image (B, C, H, W) -> patch tokens (B, N, D), row by row."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        norm_layer: Callable[..., nn.Module] | None = None,
        flatten_embedding: bool = True,
    ) -> None:
        super().__init__()
        self.img_size = as_pair(img_size)
        self.patch_size = as_pair(patch_size)
        rows, columns = (size // patch for size, patch in zip(self.img_size, self.patch_size))
        self.patches_resolution = (rows, columns)
        self.num_patches = rows * columns
        self.in_chans = in_chans
        self.embed_dim = embed_dim
        self.flatten_embedding = flatten_embedding
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), or (B, h, w, D) where `flatten_embedding` is off.

        Raises:
            ValueError: if height or width is no multiple of the patch.
        """
        height, width = x.shape[-2:]
        for name, size, patch in (("height", height, self.patch_size[0]), ("width", width, self.patch_size[1])):
            if size % patch:
                raise ValueError(f"image {name} {size} is not a multiple of patch {name} {patch}")
        x = self.proj(x)  # (B, D, h, w)
        rows, columns = x.shape[-2:]
        x = self.norm(x.flatten(2).transpose(1, 2))  # (B, N, D)
        return x if self.flatten_embedding else x.unflatten(1, (rows, columns))
