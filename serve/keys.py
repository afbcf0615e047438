"""API keys: a file per key, which holds a hash of its secret.

A key reads `rr_<id>_<secret>`. The id is public: it names the file, and the jobs that belong to the key. The secret has
256 random bits, so that a plain SHA-256 of it can't be reversed; nothing else of it is kept.
"""

import base64
import hashlib
import hmac
import re
import secrets
import time
from pathlib import PurePosixPath

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.store import MissingError
from rayramid.serve.job import Record
from rayramid.serve.spec import KeyLimits

ID_PATTERN = re.compile(r"[0-9a-f]{16}")
PATTERN = re.compile(r"rr_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
NOBODYS = hashlib.sha256(b"").hexdigest()


class Key(Record):
    """What is kept of an API key.

    Args:
        id: its public part, which owns jobs.
        name: for people.
        digest: SHA-256 of its secret part.
        webhook_secret: what events for its owner are signed with; both sides need it, so it is kept as it is.
        created_at: Unix time.
        revoked_at: Unix time since which it opens nothing.
        limits: of its own, instead of those of the spec.
    """

    id: str
    name: str
    digest: str
    webhook_secret: str
    created_at: int
    revoked_at: int | None = None
    limits: KeyLimits = KeyLimits()


class KeyRing:
    """The keys below one URL. All methods but `find` block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str, Key] = {}
        self._versions: dict[str, str] = {}

    def create(self, name: str, limits: KeyLimits) -> tuple[Key, str]:
        """A new key, and what its owner sends: shown now and never again."""
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        key = Key(
            id=key_id,
            name=name,
            digest=_digest(secret),
            webhook_secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
            created_at=int(time.time()),
            limits=limits,
        )
        storage.write_atomic(self._at(key_id), key.model_dump_json().encode())
        return key, f"rr_{key_id}_{secret}"

    def all(self) -> list[Key]:
        """Every key, the oldest first, revoked ones too."""
        self.refresh()
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    def get(self, key_id: str) -> Key | None:
        """The key with an id, if there is one."""
        if not ID_PATTERN.fullmatch(key_id):
            return None
        try:
            return Key.model_validate_json(storage.read_bytes(self._at(key_id)))
        except MissingError:
            return None

    def revoke(self, key_id: str) -> Key:
        """Let a key open nothing from now on; its jobs stay.

        Raises:
            UserError: there is no such key.
        """
        key = self.get(key_id)
        if key is None:
            raise UserError(f"no key has the id {key_id!r}; `rayramid keys list` shows them")
        revoked = key.model_copy(update={"revoked_at": key.revoked_at or int(time.time())})
        storage.write_atomic(self._at(key_id), revoked.model_dump_json().encode())
        return revoked

    def refresh(self) -> None:
        """Read what has changed since the last time."""
        found = {PurePosixPath(url).stem: (url, stat.version) for url, stat in storage.list_stats(self.url)}
        changed = [key_id for key_id, (_, version) in found.items() if self._versions.get(key_id) != version]
        keys = {key_id: key for key_id, key in self._keys.items() if key_id in found}
        for key_id in changed:
            key = self.get(key_id)
            if key is not None:
                keys[key_id] = key
        self._keys = keys
        self._versions = {key_id: version for key_id, (_, version) in found.items()}

    def find(self, sent: str) -> Key | None:
        """The key that a client has sent, as of the last refresh; None if there is none like it.

        Whether the id or the secret is wrong does not show in the time that this takes.
        """
        match = PATTERN.fullmatch(sent)
        key = self._keys.get(match[1]) if match else None
        same = hmac.compare_digest(_digest(match[2] if match else sent), key.digest if key else NOBODYS)
        return key if same else None

    def _at(self, key_id: str) -> str:
        return storage.join(self.url, f"{key_id}.json")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
