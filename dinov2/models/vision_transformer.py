"""The vision transformer DINOv2 trains.

Source: Dosovitskiy et al. 2021; Oquab et al. 2023 (DINOv2); registers by Darcet et al. 2024. Attribute
and parameter names are DINOv2's, so that published weights load.
Differs from the reference: crops of several sizes run through the blocks together without xFormers
(see `layers.block`); positions are resized by fixed matrices (see `models.position`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from dinov2.errors import unknown_name
from dinov2.layers import Block, LayerNorm, MemEffAttention, Mlp, PatchEmbed, SwiGLUFFNFused

from .position import resize_position_grid

Features = dict[str, Any]
"""Tokens by DINOv2's names; see `DinoVisionTransformer.forward_features`."""

FFN_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": Mlp,
    "swiglu": SwiGLUFFNFused,
    "swiglufused": SwiGLUFFNFused,
    "identity": nn.Identity,
}


class BlockChunk(nn.ModuleList):
    """Consecutive blocks under one name; `nn.Identity` stands for the blocks of earlier chunks."""

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Takes and returns (B, N, D), or a list of such groups."""
        for block in self:
            x = block(x)
        return x


class DinoVisionTransformer(nn.Module):
    """Image (B, C, H, W) -> class, register and patch tokens."""

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        ffn_bias: bool = True,
        proj_bias: bool = True,
        drop_path_rate: float = 0.0,
        drop_path_uniform: bool = False,
        init_values: float | None = None,
        embed_layer: Callable[..., PatchEmbed] = PatchEmbed,
        act_layer: Callable[..., nn.Module] = nn.GELU,
        block_fn: Callable[..., Block] = Block,
        ffn_layer: str = "mlp",
        block_chunks: int = 1,
        num_register_tokens: int = 0,
        interpolate_antialias: bool = False,
        interpolate_offset: float = 0.1,
    ) -> None:
        """Build and initialise.

        Args:
            img_size: pixels of the square image whose patch grid the stored positions have.
            init_values: start of LayerScale; none without it.
            block_chunks: groups that the blocks are named in (`blocks.{chunk}.{i}`); 0 for `blocks.{i}`.
        Raises:
            UserError: for an unknown `ffn_layer`.
        """
        super().__init__()
        if ffn_layer not in FFN_LAYERS:
            raise unknown_name("ffn_layer", ffn_layer, FFN_LAYERS)
        norm_layer = partial(LayerNorm, eps=1e-6)
        self.num_features = self.embed_dim = embed_dim
        self.num_tokens = 1
        self.n_blocks = depth
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.num_register_tokens = num_register_tokens
        self.interpolate_antialias = interpolate_antialias
        self.interpolate_offset = interpolate_offset

        self.patch_embed = embed_layer(img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim)) if num_register_tokens else None
        )
        blocks = [
            block_fn(
                dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
                ffn_bias=ffn_bias,
                drop_path=rate,
                norm_layer=norm_layer,
                act_layer=act_layer,
                ffn_layer=FFN_LAYERS[ffn_layer],
                init_values=init_values,
            )
            for rate in drop_path_rates(drop_path_rate, depth, uniform=drop_path_uniform)
        ]
        self.chunked_blocks = block_chunks > 0
        self.blocks = _chunk(blocks, block_chunks) if self.chunked_blocks else nn.ModuleList(blocks)
        self.norm = norm_layer(embed_dim)
        self.head = nn.Identity()
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated-normal positions and linear layers (0.02), near-zero class and register tokens."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def block_list(self) -> list[Block]:
        """The blocks in depth order, chunked or not."""
        return [block for block in self.blocks.modules() if isinstance(block, Block)]

    def interpolate_pos_encoding(self, x: Tensor, height: int, width: int) -> Tensor:
        """Positions (1, 1 + N, D) for tokens x (B, 1 + N, D) of an image of height x width pixels."""
        stored = self.pos_embed.shape[1] - 1
        if x.shape[1] - 1 == stored and height == width:
            return self.pos_embed
        side = math.isqrt(stored)
        if side * side != stored:
            raise ValueError(f"{stored} stored positions are no square grid: they fit square images only")
        size = (height // self.patch_size, width // self.patch_size)
        grid = resize_position_grid(
            self.pos_embed[0, 1:].unflatten(0, (side, side)),
            size,
            antialias=self.interpolate_antialias,
            offset=self.interpolate_offset,
        )  # (h, w, D)
        # In the dtype of the parameter, resized or not: crops of all sizes then have the same residual stream.
        return torch.cat((self.pos_embed[:, :1], grid.flatten(0, 1)[None].to(self.pos_embed.dtype)), dim=1)

    def prepare_tokens_with_masks(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), masks (B, N) bool -> tokens (B, 1 + R + N, D) before the first block."""
        batch, _, height, width = x.shape
        x = self.patch_embed(x)  # (B, N, D)
        if masks is not None:
            x = torch.where(masks.unsqueeze(-1), self.mask_token.to(x.dtype)[None], x)
        x = torch.cat((self.cls_token.expand(batch, -1, -1).to(x.dtype), x), dim=1)  # (B, 1 + N, D)
        x = x + self.interpolate_pos_encoding(x, height, width)
        if self.register_tokens is None:
            return x
        registers = self.register_tokens.expand(batch, -1, -1).to(x.dtype)  # (B, R, D)
        return torch.cat((x[:, :1], registers, x[:, 1:]), dim=1)

    @overload
    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> Features: ...

    @overload
    def forward_features(self, x: list[Tensor], masks: Sequence[Tensor | None] | None = None) -> list[Features]: ...

    def forward_features(self, x: Tensor | list[Tensor], masks: Any = None) -> Features | list[Features]:
        """All outputs of an image batch, or of a list of batches of different sizes.

        Args:
            x: (B, C, H, W), or a list of such.
            masks: (B, N) bool, True where the mask token replaces the patch; one per batch for a list.
        Returns:
            x_norm_clstoken (B, D), x_norm_regtokens (B, R, D), x_norm_patchtokens (B, N, D),
            x_prenorm (B, 1 + R + N, D) and the masks; a list of such dicts for a list.
        """
        if isinstance(x, Tensor):
            return self._outputs(self._run_blocks(self.prepare_tokens_with_masks(x, masks)), masks)
        masks = [None] * len(x) if masks is None else masks
        groups = [self.prepare_tokens_with_masks(*group) for group in zip(x, masks)]  # [(B_i, 1 + R + N_i, D)]
        return [self._outputs(*group) for group in zip(self._run_blocks(groups), masks)]

    def forward(self, *args: Any, is_training: bool = False, **kwargs: Any) -> Any:
        """`forward_features` where `is_training`, else the class token (B, D) through `head`."""
        features: Any = self.forward_features(*args, **kwargs)
        return features if is_training else self.head(features["x_norm_clstoken"])

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Iterable[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Patch tokens after some blocks, in depth order.

        Args:
            x: (B, C, H, W).
            n: how many last blocks, or which blocks by index.
            reshape: (B, D, h, w) maps instead of (B, N, D) tokens.
            return_class_token: pairs (patches, class token (B, D)) instead of patches.
            norm: apply the final layer norm to each.
        """
        outputs = self._outputs_of_blocks(x, n)  # (B, 1 + R + N, D) each
        outputs = [self.norm(out) for out in outputs] if norm else outputs
        class_tokens = [out[:, 0] for out in outputs]
        patches = [out[:, 1 + self.num_register_tokens :] for out in outputs]
        if reshape:
            grid = tuple(size // self.patch_size for size in x.shape[-2:])
            patches = [out.unflatten(1, grid).permute(0, 3, 1, 2).contiguous() for out in patches]
        return tuple(zip(patches, class_tokens)) if return_class_token else tuple(patches)

    def _outputs_of_blocks(self, x: Tensor, n: int | Iterable[int]) -> list[Tensor]:
        blocks = self.block_list()
        wanted = set(range(len(blocks) - n, len(blocks))) if isinstance(n, int) else set(n)
        if not wanted <= set(range(len(blocks))):
            raise ValueError(f"blocks {sorted(wanted)} asked for, but the model has blocks 0 to {len(blocks) - 1}")
        x = self.prepare_tokens_with_masks(x)
        outputs = []
        for index, block in enumerate(blocks):
            x = block(x)
            if index in wanted:
                outputs.append(x)
        return outputs

    def _run_blocks(self, tokens: Any) -> Any:
        """Takes and returns (B, 1 + R + N, D), or a list of such groups."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def _outputs(self, tokens: Tensor, masks: Tensor | None) -> Features:
        normed = self.norm(tokens)  # (B, 1 + R + N, D)
        first_patch = 1 + self.num_register_tokens
        return {
            "x_norm_clstoken": normed[:, 0],
            "x_norm_regtokens": normed[:, 1:first_patch],
            "x_norm_patchtokens": normed[:, first_patch:],
            "x_prenorm": tokens,
            "masks": masks,
        }


def drop_path_rates(rate: float, depth: int, *, uniform: bool) -> list[float]:
    """Stochastic-depth rate of every block: the same, or growing linearly from 0."""
    if uniform or depth == 1:
        return [rate if uniform else 0.0] * depth
    return [rate * index / (depth - 1) for index in range(depth)]


def _chunk(blocks: list[Block], num_chunks: int) -> nn.ModuleList:
    """Group blocks so that each keeps its global index: `blocks.{chunk}.{index}`."""
    size = max(len(blocks) // num_chunks, 1)
    return nn.ModuleList(
        BlockChunk([*(nn.Identity() for _ in range(start)), *blocks[start : start + size]])
        for start in range(0, len(blocks), size)
    )


def _vit(embed_dim: int, depth: int, num_heads: int, patch_size: int, registers: int, kwargs) -> DinoVisionTransformer:
    return DinoVisionTransformer(
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=4,
        block_fn=partial(Block, attn_class=MemEffAttention),
        num_register_tokens=registers,
        **kwargs,
    )


def vit_tiny(patch_size: int = 16, num_register_tokens: int = 0, **kwargs) -> DinoVisionTransformer:
    """ViT-Ti: width 192, 12 blocks, 3 heads."""
    return _vit(192, 12, 3, patch_size, num_register_tokens, kwargs)


def vit_small(patch_size: int = 16, num_register_tokens: int = 0, **kwargs) -> DinoVisionTransformer:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return _vit(384, 12, 6, patch_size, num_register_tokens, kwargs)


def vit_base(patch_size: int = 16, num_register_tokens: int = 0, **kwargs) -> DinoVisionTransformer:
    """ViT-B: width 768, 12 blocks, 12 heads."""
    return _vit(768, 12, 12, patch_size, num_register_tokens, kwargs)


def vit_large(patch_size: int = 16, num_register_tokens: int = 0, **kwargs) -> DinoVisionTransformer:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return _vit(1024, 24, 16, patch_size, num_register_tokens, kwargs)


def vit_giant2(patch_size: int = 16, num_register_tokens: int = 0, **kwargs) -> DinoVisionTransformer:
    """ViT-g, about 1.1 billion parameters: width 1536, 40 blocks, 24 heads of 64."""
    return _vit(1536, 40, 24, patch_size, num_register_tokens, kwargs)


ARCHITECTURES: dict[str, Callable[..., DinoVisionTransformer]] = {
    function.__name__: function for function in (vit_tiny, vit_small, vit_base, vit_large, vit_giant2)
}
