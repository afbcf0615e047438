"""A VAE as a folder at any URL: `config.json` (architecture and latent statistics) and `model.safetensors`."""

import dataclasses
import hashlib
import json

from pydantic import TypeAdapter, ValidationError
from torch import uint8

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.model import CausalVAE
from rayramid.models.weights import load_strict, read_weights, write_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_vae(url: str, vae: CausalVAE) -> None:
    """Write the VAE to the folder `url`; the configuration comes last, so that a folder with one is whole."""
    write_weights(storage.join(url, WEIGHTS), vae.state_dict())
    storage.write_atomic(storage.join(url, CONFIG), json.dumps(dataclasses.asdict(vae.config), indent=2).encode())


def load_vae(url: str) -> CausalVAE:
    """Read the VAE of the folder `url` onto the CPU, in the dtype of its weights, ready for inference.

    Raises:
        UserError: names the file, and the key if one is missing, surplus or of another shape.
    """
    vae = CausalVAE(read_config(url))
    location = storage.join(url, WEIGHTS)
    tensors = read_weights(location)
    vae.to(next(iter(tensors.values()), vae.encoder.stem.weight).dtype)
    load_strict(vae, tensors, location)
    return vae.eval()


def read_config(url: str) -> VAEConfig:
    """The configuration of the VAE in the folder `url`: enough to normalise latents."""
    location = storage.join(url, CONFIG)
    if not storage.exists(location):
        raise UserError(f"{url}: not a VAE folder, it has no {CONFIG}")
    try:
        return parse_config(json.loads(storage.read_bytes(location)), location)
    except json.JSONDecodeError as broken:
        raise UserError(f"{location}: not JSON ({broken})") from broken


def parse_config(fields: object, source: str) -> VAEConfig:
    """The configuration in a parsed JSON file; UserError names `source` and the first key that is wrong."""
    known = {field.name for field in dataclasses.fields(VAEConfig)}
    for key in fields if isinstance(fields, dict) else ():
        if key not in known:
            raise UserError(f"{source}: {key} is no key of a VAE's configuration")
    try:
        return TypeAdapter(VAEConfig).validate_python(fields)
    except ValidationError as invalid:
        error = invalid.errors()[0]
        where = "".join(f"{part}: " for part in error["loc"][:1])
        raise UserError(f"{source}: {where}{error['msg'].removeprefix('Value error, ')}") from invalid


def fingerprint(vae: CausalVAE) -> str:
    """16 hex digits of the configuration and the weights: VAEs that agree in it give the same latents.

    A copy in another dtype has another fingerprint, so take it of the VAE as loaded.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(vae.config), sort_keys=True).encode())
    for key, tensor in sorted(vae.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(uint8).numpy().data)
    return digest.hexdigest()[:16]
