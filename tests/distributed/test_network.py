"""Which way to other machines gloo is told of."""

import os
import socket

import pytest

from dinov2.distributed import LaunchEnvironment, group, network

ADDRESSES = {"lo": "127.0.0.1", "eth0": "10.0.0.5", "ib0": "10.1.0.5"}


@pytest.fixture
def interfaces(monkeypatch):
    """A machine with two networks, whose name is that of its loopback interface."""
    monkeypatch.setattr(network, "_address_of", {**ADDRESSES, "ifb0": None}.get)
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(["lo", "ifb0", "eth0", "ib0"])))
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)

    class Probe:
        """A socket that knows the way to two networks."""

        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def connect(self, place):
            ways = {"10.0.0.1": "10.0.0.5", "10.1.0.1": "10.1.0.5", "localhost": "127.0.0.1"}
            if place[0] not in ways:
                raise OSError("unknown")
            self.own = ways[place[0]]

        def getsockname(self):
            return (self.own, 1)

    monkeypatch.setattr(socket, "socket", Probe)


@pytest.mark.parametrize(
    ("address", "interface"), [("10.0.0.1", "eth0"), ("10.1.0.1", "ib0"), ("localhost", "eth0"), ("nowhere", "eth0")]
)
def test_the_interface_that_leads_there_or_anywhere(address, interface, interfaces):
    assert network.interface_towards(address) == interface


def test_a_machine_without_network(interfaces, monkeypatch):
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    assert network.interface_towards("10.0.0.1") is None


def test_gloo_is_told_only_where_it_would_go_wrong(interfaces, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    two_machines = LaunchEnvironment("torchrun", 0, 4, 0, 2, master_addr="10.1.0.1")
    group._choose_interface(LaunchEnvironment("torchrun", 0, 2, 0, 2, master_addr="10.1.0.1"))
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    group._choose_interface(two_machines)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
    os.environ["GLOO_SOCKET_IFNAME"] = "mine"
    group._choose_interface(two_machines)
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == "mine"
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.5")
    group._choose_interface(two_machines)
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_the_addresses_of_this_machine():
    assert network._address_of("lo") in ("127.0.0.1", None)
    assert network._address_of("no such one") is None
    assert network.own_name_leads_nowhere() in (True, False)
