"""A pre-norm transformer block that runs on one tensor or on several groups of crops at once.

Source: DINOv2 section 5 (sequence packing, efficient stochastic depth).
Differs from the reference: layer norm, linear layers and MLP run once on the tokens of all groups;
only attention runs per group. Equal in value, and free of block-diagonal masks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Attention
from .drop_path import DropPath, residual_on_all, residual_on_subset
from .layer_scale import LayerScale
from .mlp import Mlp

# Below this rate DINOv2 computes the whole branch of a lone tensor and masks it afterwards.
MASKED_DROP_LIMIT = 0.1


class Block(nn.Module):
    """x + scale(attention(norm(x))), then x + scale(mlp(norm(x)))."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        init_values: float | None = None,
        drop_path: float = 0.0,
        act_layer: Callable[..., nn.Module] = nn.GELU,
        norm_layer: Callable[..., nn.Module] = nn.LayerNorm,
        attn_class: Callable[..., Attention] = Attention,
        ffn_layer: Callable[..., nn.Module] = Mlp,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn_class(
            dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.ls1 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = ffn_layer(
            in_features=dim,
            hidden_features=int(dim * mlp_ratio),
            act_layer=act_layer,
            drop=drop,
            bias=ffn_bias,
        )
        self.ls2 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path)
        self.sample_drop_ratio = drop_path
        self.activation_checkpointing = False  # keep the input only, and compute the rest again for the gradients

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Takes (B, N, D), or a list of groups (B_i, N_i, D) of different lengths; returns the same."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            # The state of the random generators is kept too, so that both passes drop the same branches.
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(x, list):
            return self._forward_groups(x)
        if self.training and 0.0 < self.sample_drop_ratio <= MASKED_DROP_LIMIT:
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
            return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return self._forward_groups([x])[0]

    def _forward_groups(self, groups: list[Tensor]) -> list[Tensor]:
        for branch in (self._attention_branch, self._mlp_branch):
            if self.training and self.sample_drop_ratio > 0.0:
                groups = residual_on_subset(groups, branch, self.sample_drop_ratio)
            else:
                groups = residual_on_all(groups, branch)
        return groups

    def _attention_branch(self, tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """(T, D) -> (T, D), images attending to themselves only."""
        return self.ls1(self.attn.forward_packed(self.norm1(tokens), shapes))

    def _mlp_branch(self, tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """(T, D) -> (T, D), token by token."""
        return self.ls2(self.mlp(self.norm2(tokens)))


NestedTensorBlock = Block
"""DINOv2's name for a block that accepts a list of groups: here every block does."""
