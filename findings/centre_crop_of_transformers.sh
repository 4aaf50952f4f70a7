#!/usr/bin/env bash
# transformers: an image processor cuts another centre out of a tile than torchvision's CenterCrop (which timm uses, too),
# although its back end is called torchvision: with 3 pixels to spare it begins one pixel earlier, with 5 at the same one.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" transformers==5.24.0 torch==2.11.0 torchvision==0.26.0 pillow==13.0.0
cd "$folder"
PYTHONPATH="$folder/packages" python3 - <<'END'
import sys

import numpy as np
import torchvision
import transformers
from PIL import Image

seen = {}
for spare in (3, 5):
    columns = np.tile(np.arange(224 + spare, dtype=np.uint8), (224, 1))  # each pixel is the number of its column
    tile = Image.fromarray(np.stack([columns] * 3, axis=2))
    processor = transformers.BitImageProcessor(
        do_resize=False, do_rescale=False, do_normalize=False, crop_size={"height": 224, "width": 224}
    )
    theirs = processor(tile, return_tensors="np")["pixel_values"][0, 0, 0, 0]
    seen[spare] = (int(np.asarray(torchvision.transforms.CenterCrop(224)(tile))[0, 0, 0]), int(theirs))
print(f"transformers {transformers.__version__}, torchvision {torchvision.__version__}, {type(processor).__name__}")
print("expected: the same first column of the centre, 224 pixels wide, in both")
for spare, (torchvisions, theirs) in seen.items():
    print(f"a tile of {224 + spare}: torchvision begins at column {torchvisions}, transformers at {theirs}")
sys.exit(0 if seen == {3: (2, 1), 5: (2, 2)} else 1)
END
