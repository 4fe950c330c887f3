"""Which proxy a URL is reached through: the rule of curl and requests, read from the environment.

``HTTPS_PROXY`` or ``HTTP_PROXY`` by the URL's scheme, else ``ALL_PROXY``; not where ``NO_PROXY`` names the host: by a
suffix of its name, an address, a network (``10.0.0.0/8``), each with ``:port`` or without; ``*`` is every host. A name in
lower case goes over the one in capitals.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ursa.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy. ``authorization``: the value of Proxy-Authorization, never shown. ``variable``: what names the proxy."""

    scheme: str
    host: str
    port: int
    variable: str
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port} ({self.variable})"


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a URL; None where it is reached directly.

    Raises:
        ConfigError: the variable holds no URL of an http:// or https:// proxy. Its value is never quoted.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if _excluded(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                return _parsed(value, variable)
    return None


def _parsed(value: str, variable: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigError(
            f"{variable} does not name a proxy that ursa can use",
            hint=f"Set {variable} to http://host:port or https://host:port; or name this server in NO_PROXY.",
            key=variable,
        )
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    # curl's port for a proxy of which only the host is named.
    return Proxy(
        parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 1080), variable, authorization
    )


def _excluded(host: str, port: int, no_proxy: str) -> bool:
    return any(_names(entry, host.rstrip(".").lower(), port) for entry in no_proxy.replace(",", " ").lower().split())


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if _contains(entry, host):
        return True
    name, colon, of_port = entry.rpartition(":")
    if colon and of_port.isdigit() and (name.endswith("]") or ":" not in name):
        return int(of_port) == port and _names(name, host, port)
    suffix = entry.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _contains(network: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:  # one of the two is a name
        return False
