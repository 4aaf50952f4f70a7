"""Weights out: a backbone as other libraries load it, with a model card, checked before it counts as done.

    python -m dinov2.hub export --weights W --to safetensors|timm|huggingface|onnx|torchscript --output D

`writing` is the way through; `formats` has the kinds, one file each; `docs/weights.md` says what they are for.
"""
