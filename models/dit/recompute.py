"""Activation checkpointing: what the backward pass needs is kept, or done again from a block's inputs."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar, TypeVarTuple

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]

# What selective recomputation keeps. The rest is cheap to do again: what goes element by element, copies, and exchanges
# between ranks that split a pack.
KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.higher_order.flex_attention,
}

Inputs = TypeVarTuple("Inputs")
Output = TypeVar("Output")


def run(forward: Callable[[*Inputs], Output], recompute: Recompute, *inputs: *Inputs) -> Output:
    """`forward(*inputs)`, keeping for the backward pass everything, products alone, or the inputs alone."""
    if recompute == "none" or not torch.is_grad_enabled():
        return forward(*inputs)
    if recompute == "full":
        return checkpoint(forward, *inputs, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _keep_products(context: object, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
