"""The address under which others reach a server that listens on every address of its machine."""

from __future__ import annotations

import pytest

from downpour.protos.settings import reachable
from downpour.ps.control_plane.servicer import host_of


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "::"])
def test_any_address_is_the_one_under_which_it_was_found(host: str) -> None:
    assert reachable(f"{host}:7171", "10.0.0.1") == "10.0.0.1:7171"
    assert reachable(f"{host}:7171", "[fd00::1]") == "[fd00::1]:7171"
    assert reachable(f"{host}:7171", "") == f"{host}:7171"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "a.example:7171", "[::1]:2"])
def test_an_address_of_its_own_is_kept(address: str) -> None:
    assert reachable(address, "10.0.0.1") == address


def test_the_host_of_a_caller_on_another_machine_is_known() -> None:
    assert host_of("ipv4:10.0.0.2:4711") == "10.0.0.2"
    assert host_of("ipv6:%5Bfd00::2%5D:4711") == "[fd00::2]"
    assert host_of("ipv4:127.0.0.1:4711") == host_of("ipv6:%5B::1%5D:4711") == host_of("unix:/x") == ""
