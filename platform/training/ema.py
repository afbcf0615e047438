"""The moving average of the weights, sharded as they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class EMA:
    """An average of the weights that train over about 1 / (1 - decay) steps, shorter at the start of a run."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.average = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights after step `step`, counted from 1."""
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_local(self.average), _local(self._weights), 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are the average."""
        with torch.no_grad():
            own = [weight.clone() for weight in _local(self._weights)]
            torch._foreach_copy_(_local(self._weights), _local(self.average))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(_local(self._weights), own)


def _local(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """This rank's parts, as views."""
    return [t.to_local() if isinstance(t, DTensor) else t.data for t in tensors.values()]
