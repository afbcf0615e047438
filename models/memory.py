"""Memory of training and sampling a DiT: activations, K/V cache, weights and optimiser, and what fits on a GPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rayramid.models.attention import plan_attention
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.recompute import Recompute
from rayramid.models.flops import is_visible
from rayramid.models.history import Segment

BF16 = 2

# fp32 weights, gradients, two Adam moments and the moving average, all sharded over the GPUs.
TRAINING_BYTES = 20

GPU_GB = (24, 40, 80)
# The rest is for kernels, communication and fragmentation.
USABLE = 0.9
TRAINING_GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Formats:
    """Bytes of a number while a DiT trains.

    Attributes:
        exact: in the residual stream, norms and rotations.
        product: in what matrix products read and give; less than `exact` under autocast alone.
        attention: in queries, keys and values.
        gathers: whether every group of queries has a copy of the keys that it sees (executor `sdpa`; not `flex`).
    """

    exact: int = 4
    product: int = BF16
    attention: int = BF16
    gathers: bool = False


# bf16 autocast with flex attention.
ON_GPU = Formats()


@dataclass(frozen=True)
class PackSize:
    """What of a pack decides its activations; sizes of packs add up.

    Attributes:
        tokens: all of them.
        text: those that are text.
        targets: those of targets.
        segments: how many segments.
        keys: tokens of keys that attention gathers, padding included.
    """

    tokens: int
    text: int
    targets: int
    segments: int
    keys: int = 0


@dataclass(frozen=True)
class Fit:
    """Bytes that each GPU needs for `use` spread over `gpus`, and whether GPUs of so many GB have them."""

    use: str
    gpus: int
    bytes: int
    fits: Mapping[int, bool]


def pack_size(config: DiTConfig, segments: Sequence[Segment], *, gathers: bool = False) -> PackSize:
    """The size of a pack of these segments; `keys` are counted with `gathers` alone."""

    def tokens_of(*kinds: str) -> int:
        return sum(segment.length for segment in segments if segment.kind in kinds)

    groups = plan_attention(segments, (), lambda q, k: is_visible(config, q, k)).groups if gathers else ()
    keys = sum(len(group.keys) * max(group.key_lengths) for group in groups)
    text, targets = tokens_of("text"), tokens_of("target")
    return PackSize(text + tokens_of("context") + targets, text, targets, len(segments), keys)


def activation_bytes(config: DiTConfig, size: PackSize, recompute: Recompute, formats: Formats = ON_GPU) -> int:
    """Peak bytes of what the backward pass of one pack needs, beside the weights; blocks are not compiled.

    Counted from what the real modules keep; a test holds it to what autograd saves.
    """
    doubles, singles = config.double_blocks, config.single_blocks
    double, single = _double(config, size, formats), _single(config, size, formats)
    exact, product, attention = formats.exact, formats.product, formats.attention
    if recompute == "none":
        blocks = doubles * double + singles * single
        if not singles:
            # The last text stream ends in queries, keys and values.
            blocks -= config.width * size.text * (2 * exact + 11 * product)
    elif recompute == "selective":
        # Products, attention's output and the block's input.
        a_double = size.tokens * (exact + 9 * product + attention) + size.segments * 6 * product
        a_single = size.tokens * (exact + 8 * product + attention) + size.segments * 3 * product
        blocks = config.width * (doubles * a_double + singles * a_single) + max(double, single * (singles > 0))
    else:
        blocks = config.width * size.tokens * exact * (doubles + singles) + max(double, single * (singles > 0))
    # Rotations of a head, which all blocks share; what the head reads; conditions of segments; patches.
    outside = (
        exact * config.head_dim * size.tokens
        + config.width * size.targets * (2 * exact + product)
        + config.width * size.segments * 4 * exact
        + size.tokens * product * config.patch**2 * config.latent_channels
    )
    return blocks + outside


def _double(config: DiTConfig, size: PackSize, formats: Formats) -> int:
    """A double block.

    Exact are both norms' inputs and outputs, and queries and keys before and after theirs; in the products' format are
    what the two modulated products read, the MLP's inner pair, both changes, and what attention's product reads.
    """
    exact, product, casts = formats.exact, formats.product, formats.product < formats.exact
    # Without casts queries and keys are views of what their product gave, values included.
    per_token = (8 if casts else 9) * exact + 12 * product + _attention(formats) + product * formats.gathers
    per_segment = 7 * product + 2 * exact if casts else 8 * exact
    return config.width * (size.tokens * per_token + size.segments * per_segment + _gathered(size, formats))


def _single(config: DiTConfig, size: PackSize, formats: Formats) -> int:
    """A single block; as a double one with one norm, and attention and MLP in one last product."""
    exact, product, casts = formats.exact, formats.product, formats.product < formats.exact
    # Each of the two products that read the modulated tokens casts them for itself.
    per_token = (6 if casts else 7) * exact + (12 if casts else 11) * product + _attention(formats)
    per_segment = 4 * product + exact if casts else 5 * exact
    return config.width * (size.tokens * per_token + size.segments * per_segment + _gathered(size, formats))


def _attention(formats: Formats) -> int:
    """Queries, keys, values and the output, or with gathered keys and values all but the values."""
    return (3 if formats.gathers else 4) * formats.attention


def _gathered(size: PackSize, formats: Formats) -> int:
    return 2 * formats.attention * size.keys


def cache_bytes(config: DiTConfig, tokens: int) -> int:
    """Bytes of the keys and values of `tokens` tokens in every block, in bf16."""
    return 2 * BF16 * config.width * (config.double_blocks + config.single_blocks) * tokens


def fits(config: DiTConfig, parameters: int, training: int, cache: int, step_tokens: int) -> list[Fit]:
    """What sampling, and training with full recomputation, needs of each GPU.

    Args:
        config: the DiT; VAE and text encoders are not counted.
        parameters: its number of parameters.
        training: bytes of the activations of one pack per GPU.
        cache: bytes of K/V while sampling.
        step_tokens: tokens of the largest denoising step.
    """
    step = _double(config, PackSize(2 * step_tokens, 0, 0, 0), ON_GPU)
    rows = [("sampling in bf16", 1, BF16 * parameters + cache + step)]
    for gpus in TRAINING_GPUS:
        rows.append(("training, full recomputation", gpus, TRAINING_BYTES * parameters // gpus + training))
    return [Fit(use, gpus, size, {gb: size <= USABLE * gb * 1e9 for gb in GPU_GB}) for use, gpus, size in rows]
