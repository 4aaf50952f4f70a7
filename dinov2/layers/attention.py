"""Multi-head self-attention over the tokens of one or several groups of crops.

Source: Vaswani et al. 2017; parameter names and the order of q, k, v inside `qkv` are DINOv2's.
Differs from the reference: crops of several sizes share the linear layers and then attend one group
at a time through torch's scaled_dot_product_attention, where DINOv2 packs them behind a
block-diagonal mask of xFormers. The results are equal and nothing besides torch is needed; xFormers
can be chosen as the kernel with `Attention.backend = "xformers"`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionKernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _sdpa(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention of (B, N, H, d) queries, keys and values by torch, whatever the device."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, H, N, d)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout).transpose(1, 2)


def _xformers(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention of (B, N, H, d) queries, keys and values by xFormers (CUDA only)."""
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention(query, key, value, p=dropout)


ATTENTION_KERNELS: dict[str, AttentionKernel] = {"sdpa": _sdpa, "xformers": _xformers}


class Attention(nn.Module):
    """Self-attention in which every image sees its own tokens only."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str = "sdpa",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"width {dim} cannot be split over {num_heads} heads")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each image. Takes and returns (B, N, D)."""
        batch, tokens, dim = x.shape
        return self.forward_packed(x.reshape(-1, dim), [(batch, tokens)]).view(batch, tokens, dim)

    def forward_packed(self, tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Attend within each image of several groups whose tokens lie one after the other.

        Args:
            tokens: (sum of B_i * N_i, D), group after group, image after image.
            shapes: (B_i, N_i) of every group.
        Returns:
            A tensor of the shape of `tokens`.
        """
        qkv = self.qkv(tokens)  # (T, 3D): q, k, v outermost, heads inside
        groups = qkv.split([batch * length for batch, length in shapes])
        attended = [self._attend(group, *shape) for group, shape in zip(groups, shapes)]
        return self.proj_drop(self.proj(torch.cat(attended)))

    def _attend(self, qkv: Tensor, batch: int, length: int) -> Tensor:
        """(B * N, 3D) projections of one group -> (B * N, D) mixed values."""
        query, key, value = qkv.view(batch, length, 3, self.num_heads, -1).unbind(2)  # (B, N, H, d)
        dropout = self.attn_drop if self.training else 0.0
        mixed = ATTENTION_KERNELS[self.backend](query, key, value, dropout)  # (B, N, H, d)
        return mixed.reshape(batch * length, -1)


MemEffAttention = Attention
"""DINOv2's name for the attention with a memory-efficient kernel: here every kernel is one."""
