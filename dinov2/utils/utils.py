"""The schedule that DINOv2 keeps under this path."""

import numpy as np


class CosineScheduler:
    """`freeze_iters` zeros, a linear warm-up, then half a cosine to the final value.

    As in DINOv2 the warm-up reaches the base value at its last step, so that value comes twice, and the
    cosine ends one step before the final value. From `total_iters` on the value is the final one.
    """

    def __init__(
        self,
        base_value: float,
        final_value: float,
        total_iters: int,
        warmup_iters: int = 0,
        start_warmup_value: float = 0,
        freeze_iters: int = 0,
    ) -> None:
        """Compute all values, (total_iters,) float64.

        Raises:
            ValueError: if warm-up and freeze are longer than the schedule.
        """
        cosine_iters = total_iters - warmup_iters - freeze_iters
        if cosine_iters < 0:
            raise ValueError(f"{warmup_iters} + {freeze_iters} iterations of warm-up and freeze exceed {total_iters}")
        self.final_value = final_value
        self.total_iters = total_iters
        warmup = np.linspace(start_warmup_value, base_value, warmup_iters)
        angle = np.pi * np.arange(cosine_iters) / max(cosine_iters, 1)
        cosine = final_value + 0.5 * (base_value - final_value) * (1 + np.cos(angle))
        self.schedule = np.concatenate((np.zeros(freeze_iters), warmup, cosine))

    def __getitem__(self, iteration: int) -> float:
        return self.final_value if iteration >= self.total_iters else float(self.schedule[iteration])
