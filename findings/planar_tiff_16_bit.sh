#!/usr/bin/env bash
# Pillow: an uncompressed RGB TIFF of 16 bits whose channels lie apart (PlanarConfiguration 2), as microscope software
# writes it, opens as RGB without an error or a warning, and is wrong in every channel. The same file with LZW is right.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
PYTHONPATH="$folder/packages" python3 - <<'END'
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

across, down = np.meshgrid(np.arange(64), np.arange(64))
channels = np.stack([across * 1000, down * 1000, 65535 - across * 1000]).astype(np.uint16)  # (3, 64, 64)
expected = np.moveaxis(channels >> 8, 0, 2)
errors = {}
for compression in (None, "lzw"):
    tifffile.imwrite("tile.tif", channels, photometric="rgb", planarconfig="separate", compression=compression)
    assert np.array_equal(tifffile.imread("tile.tif"), channels)
    seen = np.asarray(Image.open("tile.tif")).astype(int)
    errors[compression] = np.abs(seen - expected).mean(axis=(0, 1)).round().tolist()
print(f"Pillow {PIL.__version__}, tifffile {tifffile.__version__}")
print("expected: the upper 8 of the 16 bits, mean difference of red, green and blue [0, 0, 0]")
print(f"uncompressed: {errors[None]}")
print(f"LZW:          {errors['lzw']}")
sys.exit(0 if min(errors[None]) > 10 and errors["lzw"] == [0, 0, 0] else 1)
END
