"""Code for model cards that makes images (1, 3, S, S) of a tile; its imports are PIL, torchvision and NumPy."""

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
image = Image.open("tile.png").convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
pixels = np.asarray(image, dtype=np.float32) / 255
pixels = (pixels - np.float32({notes.mean})) / np.float32({notes.std})
images = pixels.transpose(2, 0, 1)[None]  # (1, 3, size, size)
"""
