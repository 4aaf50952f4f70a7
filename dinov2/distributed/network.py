"""Through which network interface a machine reaches the others.

gloo asks what address the name of the machine has, and on many systems that is 127.0.1.1, which leads nowhere. NCCL
looks at the interfaces instead; here gloo is told of one where it would go wrong.
"""

import fcntl
import socket
import struct

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


def interface_towards(address: str) -> str | None:
    """Name of the interface that leads to a machine, or of the first that leads anywhere; None without any.

    Args:
        address: name or IPv4 address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing, but chooses the way
            own = probe.getsockname()[0]
        except OSError:
            own = "127.0.0.1"
    addresses = {name: found for _, name in socket.if_nameindex() if (found := _address_of(name))}
    leading_anywhere = [name for name, found in addresses.items() if not found.startswith("127.")]
    return next((name for name in leading_anywhere if addresses[name] == own), next(iter(leading_anywhere), None))


def own_name_leads_nowhere() -> bool:
    """Whether the name of this machine is unknown, or that of its loopback interface."""
    try:
        return socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        return True


def _address_of(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, request)
        except OSError:
            return None  # it has no IPv4 address
    return socket.inet_ntoa(answer[20:24])
