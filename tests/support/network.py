"""Two hosts on this machine, each with a network of its own, and the cable between them; needs root and iproute2."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

ADDRESSES = ("10.213.7.1", "10.213.7.2")


class Hosts(NamedTuple):
    """Two hosts.

    Attributes:
      names: of their network namespaces.
      addresses: of the hosts.
    """

    names: tuple[str, str]
    addresses: tuple[str, str] = ADDRESSES

    def command(self, host: int, *command: str) -> list[str]:
        """Return a command that runs another one on a host."""
        # Not `ip netns exec`: its mount namespace would hold on to the disks that other tests unmount.
        # JAX's collectives listen where the name of the host points to, and an address points to itself.
        renamed = f'hostname {self.addresses[host]} && exec "$@"'
        return [
            "nsenter",
            f"--net=/run/netns/{self.names[host]}",
            "unshare",
            "--uts",
            "sh",
            "-c",
            renamed,
            "sh",
            *command,
        ]

    def pull_the_cable(self) -> None:
        """Cut the connection between the hosts; packets are lost without a word."""
        for name in self.names:
            _ip("-n", name, "link", "set", "cable", "down")


def missing() -> str | None:
    """Return why such hosts cannot be made on this machine, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return None if shutil.which("ip") else "ip not installed (Debian: iproute2)"


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts for as long as the body lasts."""
    hosts = Hosts((f"covidscan-{os.getpid()}-0", f"covidscan-{os.getpid()}-1"))
    try:
        for name in hosts.names:
            _ip("netns", "add", name)
        _ip("-n", hosts.names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns", hosts.names[1])
        for name, address in zip(hosts.names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        yield hosts
    finally:
        for name in hosts.names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
