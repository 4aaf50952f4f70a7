#!/usr/bin/env bash
# WebDataset: the key of a sample ends at the *first* dot of a name, not at the last one. Tiles named after a slide of
# TCGA (BARCODE.UUID_x_y.png) or with their resolution (case_0.5mpp_x_y.png) share a key, so that several tiles of a slide
# become fields of one sample: the loader gives fewer samples than there are tiles, without a word.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" webdataset==1.0.2
cd "$folder"
PYTHONPATH="$folder/packages" python3 - <<'END'
import io
import sys
import tarfile

import webdataset

names = [f"case7_0.5mpp_{x}_{y}.png" for x in (0, 512) for y in (0, 512, 1024)]
with tarfile.open("shard.tar", "w") as shard:
    for number, name in enumerate(names):
        member = tarfile.TarInfo(name)
        member.size = 1
        shard.addfile(member, io.BytesIO(bytes([number])))
samples = list(webdataset.WebDataset("shard.tar", shardshuffle=False))
print(f"webdataset {webdataset.__version__}")
print(f"expected: {len(names)} samples, one for each tile, with the field 'png'")
print(f"seen: {len(samples)} sample(s), with the key {samples[0]['__key__']!r} and {sum(not k.startswith('_') for k in samples[0])} fields")
sys.exit(0 if len(samples) == 1 else 1)
END
