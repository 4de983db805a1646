"""Two hosts on this machine, each with a network of its own, and the cable between them; needs root and iproute2."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
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
        return ["ip", "netns", "exec", self.names[host], *command]

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
    files = [Path("/etc/netns", name) for name in hosts.names]
    try:
        for name, address, folder in zip(hosts.names, ADDRESSES, files, strict=True):
            folder.mkdir(parents=True)
            # `ip netns exec` shows it as /etc/hosts: JAX's collectives listen where the host's own name points to.
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            _ip("netns", "add", name)
        _ip("-n", hosts.names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns", hosts.names[1])
        for name, address in zip(hosts.names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        yield hosts
    finally:
        for name, folder in zip(hosts.names, files, strict=True):
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
            shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
