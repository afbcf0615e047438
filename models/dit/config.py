"""What decides a DiT's parameters and meaning; stored in the checkpoint."""

from dataclasses import dataclass
from typing import Literal, get_args

# What shared context has and official conditioning has not, apart from packing: timesteps of their own for text and
# history; text that sees text alone; positions on the full-resolution grid; learned embeddings of the roles.
SharedPart = Literal["own_time", "own_text", "one_grid", "roles"]
SHARED_PARTS: tuple[SharedPart, ...] = get_args(SharedPart)


@dataclass(frozen=True)
class DiTConfig:
    """One configuration for both published architectures and for ours.

    SD3's MM-DiT has no `single_blocks`, but a `position_table` and temporal RoPE; miniFLUX has them, and 3-axis RoPE.
    `dataclasses.asdict` and `DiTConfig(**d)` round-trip through JSON. Raises ValueError for what cannot be built.

    The paper's baselines are configurations too: `frames_per_unit=None` is full-sequence diffusion, `levels=1` plain
    flow matching at full resolution, `conditioning="official"` with `causal=False` bidirectional attention.
    """

    heads: int
    head_dim: int
    double_blocks: int
    text_dim: int
    pooled_dim: int
    # How many of a head's dimensions turn with the token's time, row and column.
    rope_axes: tuple[int, int, int]
    single_blocks: int = 0
    latent_channels: int = 16
    patch: int = 2
    mlp_ratio: int = 4
    qk_norm_eps: float = 1e-6
    # Side, in tokens, of the additive sine-cosine table (0: none), and the side its coordinates were scaled to.
    position_table: int = 0
    position_base: int = 0
    levels: int = 3
    # Latents per autoregressive unit; None makes the whole video one unit.
    frames_per_unit: int | None = 1
    # How many units back anything sees; None is all.
    history_units: int | None = None
    conditioning: Literal["shared_context", "official"] = "shared_context"
    # What a model of official conditioning takes over of shared context; a sequence has one target all the same.
    shared_parts: tuple[SharedPart, ...] = ()
    causal: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rope_axes", tuple(self.rope_axes))
        object.__setattr__(self, "shared_parts", tuple(self.shared_parts))
        if sum(self.rope_axes) != self.head_dim or len(self.rope_axes) != 3 or any(axis % 2 for axis in self.rope_axes):
            raise ValueError(
                f"rope_axes {self.rope_axes} must be three even numbers that add up to head_dim {self.head_dim}"
            )
        if self.conditioning not in ("shared_context", "official"):
            raise ValueError(f"conditioning {self.conditioning!r} must be shared_context or official")
        if len(set(self.shared_parts)) < len(self.shared_parts) or not set(self.shared_parts) <= set(SHARED_PARTS):
            raise ValueError(f"shared_parts {self.shared_parts} must be among {', '.join(SHARED_PARTS)}, each once")
        if self.shared_parts and self.conditioning != "official":
            raise ValueError("shared_parts need conditioning official; shared_context has all of them, so give none")
        if not self.causal and self.conditioning != "official":
            raise ValueError("causal=False (bidirectional attention) needs conditioning official")
        if self.history_units is not None and self.history_units < 1:
            raise ValueError(f"history_units {self.history_units} must be at least 1, or null for all")
        if self.frames_per_unit is not None and self.frames_per_unit < 1:
            raise ValueError(f"frames_per_unit {self.frames_per_unit} must be at least 1, or null for the whole video")
        if self.levels < 1:
            raise ValueError(f"levels {self.levels} must be at least 1")
        if self.double_blocks < 1:
            raise ValueError(f"double_blocks {self.double_blocks} must be at least 1")
        if self.position_table and (self.position_base < 1 or self.width % 4):
            raise ValueError("a position_table needs position_base >= 1 and a width divisible by 4")

    def shares(self, part: SharedPart) -> bool:
        """Whether the model has this part of shared context."""
        return self.conditioning == "shared_context" or part in self.shared_parts

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.heads * self.head_dim

    @property
    def side_multiple(self) -> int:
        """What both sides of a full-resolution latent must be a multiple of."""
        return self.patch * 2 ** (self.levels - 1)

    @property
    def roles(self) -> int:
        """Text, a context copy per level, a target per level."""
        return 1 + 2 * self.levels
