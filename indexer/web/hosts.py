"""Which Host header a request may carry. Pure.

A page elsewhere can point a name of its own at 127.0.0.1 and have a browser on this machine read
what it finds there (DNS rebinding). Such a request names the attacker's host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.core.config_values import is_loopback_host

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class HostRule:
    """`listen_host` is that of http.listen, `hosts` the further names of http.hosts."""

    listen_host: str
    hosts: tuple[str, ...] = ()

    def accepts(self, headers: Sequence[str]) -> bool:
        """Say whether a request with these Host headers is meant for us.

        An address beyond loopback is open to every name as long as http.hosts names none. A
        client without the header is no browser.
        """
        is_open = _is_address(self.listen_host) and not is_loopback_host(self.listen_host)
        if not headers or (is_open and not self.hosts):
            return len(headers) <= 1
        match = _HOST.fullmatch(headers[0])
        if match is None or len(headers) > 1:
            return False
        host = (match[1] or match[2]).lower()
        if is_open and _is_address(host):
            return True  # nobody can point an address at another machine
        return is_loopback_host(host) or host in {self.listen_host.lower(), *self.hosts}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
