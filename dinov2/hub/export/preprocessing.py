"""Code for model cards that makes images (1, 3, S, S) of a tile; its imports are PIL, torchvision and NumPy.

Whatever library a card is for, the shorter side of a tile becomes S and the centre is cut out, as in evaluations here.
"""

TORCH_TILE = """\
transform = transforms.Compose(
    [
        transforms.Resize({notes.image_size}, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop({notes.image_size}),
        transforms.ToTensor(),
        transforms.Normalize({notes.mean}, {notes.std}),
    ]
)
images = transform(Image.open("tile.png").convert("RGB"))[None]  # (1, 3, {notes.image_size}, {notes.image_size})
"""

NUMPY_TILE = """\
size = {notes.image_size}
image = ImageOps.fit(Image.open("tile.png").convert("RGB"), (size, size), Image.Resampling.BICUBIC)
pixels = np.asarray(image, dtype=np.float32) / 255
pixels = (pixels - np.float32({notes.mean})) / np.float32({notes.std})
images = pixels.transpose(2, 0, 1)[None]  # (1, 3, size, size)
"""

TORCH_CAUTION = """\
- `ToTensor` divides 8-bit pixels by 255 and takes floats as they are; those have to lie in 0..1.
- Of a tile that is not square the centre is seen; `Resize(({size}, {size}))` would squash it instead.
"""

NUMPY_CAUTION = """\
- Pixels have to be 8-bit: floats in 0..1 would be divided by 255 again.
- Of a tile that is not square the centre is seen; `resize` in place of `ImageOps.fit` would squash it.
"""
