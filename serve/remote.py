"""Requests to URLs that users name, which must not reach what only this machine can reach (SSRF).

A host's name is resolved once per connection, every address that it stands for is checked, and the connection is made
to a checked address, never to the name; so a name that changes its mind afterwards gains nothing. Each redirect is a
new connection, checked like the first. No proxy of the environment is used.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from urllib.parse import urljoin

import httpcore

from rayramid.serve.spec import RemoteOptions

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 3
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
# All of IPv6 that is in public use; what only wraps an IPv4 address is judged by that.
UNICAST = ipaddress.ip_network("2000::/3")
# Public by their numbers, but where Azure's and Oracle's machines find their metadata.
METADATA = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("192.0.0.0/24"))
PLAIN_URL = re.compile("[!-~]{1,2048}")


class RemoteError(ValueError):
    """A URL that may not be asked, or gives nothing that can be used."""


class Remote:
    """Asks URLs of users.

    Args:
        options: how long an answer may take, and which addresses are allowed though they aren't public.
        resolve: gives the addresses of a host and port; the system's resolver by default.
    """

    def __init__(self, options: RemoteOptions, resolve: Resolve | None = None) -> None:
        self._options = options
        self._network = _CheckedNetwork(resolve or _resolve, [ipaddress.ip_network(each) for each in options.networks])

    async def get(self, url: str, limit: int) -> bytes:
        """What a URL gives, over at most three redirects.

        Args:
            url: `http` or `https`.
            limit: bytes that are read.

        Raises:
            RemoteError: it may not be asked, takes too long, is too long, or does not answer with 200.
        """
        try:
            async with asyncio.timeout(self._options.timeout_s):
                for _ in range(MOST_REDIRECTS + 1):
                    status, body, location = await self._ask("GET", url, {"Accept": "image/*"}, b"", limit)
                    if status not in REDIRECTS or not location:
                        break
                    url = urljoin(url, location)
        except TimeoutError as error:
            raise RemoteError(f"it does not answer within {self._options.timeout_s:g} s") from error
        if status != 200:
            raise RemoteError(f"it answers with status {status}")
        return body

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """The status of the answer to a body; redirects are not followed. Raises RemoteError as `get` does."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                status, _, _ = await self._ask("POST", url, headers, body, 0)
        except TimeoutError as error:
            raise RemoteError(f"it does not answer within {self._options.timeout_s:g} s") from error
        return status

    async def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes, limit: int
    ) -> tuple[int, bytes, str | None]:
        """Status, body, and where the answer points."""
        check_url(url)
        received = bytearray()
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl.create_default_context(), network_backend=self._network) as pool,
                pool.stream(method, url, headers=list((headers | _PLAIN).items()), content=body) as response,
            ):
                location = dict(response.headers).get(b"location", b"").decode("latin-1")
                if limit and response.status not in REDIRECTS:
                    async for part in response.aiter_stream():
                        received += part
                        if len(received) > limit:
                            raise RemoteError(f"it has more than the {limit} bytes that are allowed")
                return response.status, bytes(received), location or None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            if isinstance(error, RemoteError):
                raise
            raise RemoteError("it can't be reached") from error


_PLAIN = {"User-Agent": "rayramid", "Accept-Encoding": "identity", "Connection": "close"}


def check_url(url: str) -> None:
    """Refuse what is no plain http(s) URL of a host, with RemoteError."""
    try:
        parts = httpcore.URL(url) if PLAIN_URL.fullmatch(url) else None
    except (ValueError, TypeError):
        parts = None
    usable = parts is not None and parts.scheme in (b"http", b"https") and parts.host and "@" not in url.split("/")[2]
    if not usable:
        raise RemoteError("it must read https://HOST/… or http://HOST/…, without a user name")


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are allowed."""

    def __init__(self, resolve: Resolve, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        self._resolve = resolve
        self._networks = list(networks)
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of a host that answers; all of them must be allowed."""
        found = await self._resolve(host, port)
        if not found or not all(self._allows(ipaddress.ip_address(each.partition("%")[0])) for each in found):
            raise RemoteError("it does not lead to a public address")
        for each in found[:-1]:
            with suppress(httpcore.ConnectError):
                return await self._backend.connect_tcp(each, port, timeout, local_address, socket_options)
        return await self._backend.connect_tcp(found[-1], port, timeout, local_address, socket_options)

    def _allows(self, address: Address) -> bool:
        address = embedded(address)
        if any(address in network for network in self._networks):
            return True
        if address.version == 6 and address not in UNICAST:
            return False
        return address.is_global and not address.is_multicast and not any(address in each for each in METADATA)


def embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps; else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        return inner or address
    return address


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
