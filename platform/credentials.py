"""Which variables hold secrets: their values belong in the environment of the nodes, never in specs, jobs or logs."""

import re

_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def is_secret(name: str, value: str = "") -> bool:
    """Whether the variable's name tells of a secret, as in WANDB_API_KEY, or its value is a URL with a password."""
    return bool(_NAME.search(name) or _URL_WITH_PASSWORD.search(value))
