"""Settings come from flags, variables and defaults, and what is wrong with them is named."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import Field

from downpour.protos.settings import Address, Settings, parse, to_flags
from downpour.ps.config import ServerSettings

pytestmark = pytest.mark.usefixtures("clean_environment")


def refused(kind: type[Settings], *argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command line that must be refused."""
    with pytest.raises(SystemExit) as stopped:
        parse(kind, argv, "prog")
    assert stopped.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "ten"], "prog: --epochs must be a whole number, at least 1; received 'ten'"),
        (["--epochs", "1.5"], "prog: --epochs must be a whole number, at least 1; received '1.5'"),
        (["--epochs", "0"], "prog: --epochs must be a whole number, at least 1; received '0'"),
        (
            ["--learning-rate", "nan"],
            "prog: --learning-rate must be a finite number, above 0; received 'nan'",
        ),
        (["--momentum=1"], "prog: --momentum must be a finite number, at least 0, below 1; received '1'"),
        (["--transport", "grcp"], "--transport must be one of auto,"),
        (["--transport", "grcp"], "(did you mean grpc?); received 'grcp'"),
        (["--optimizer", "adm"], "(did you mean adam?); received 'adm'"),
        (["--bind", "4000"], "--bind must be HOST:PORT with a port from 0 to 65535; received '4000'"),
        (["--coordinator", "grpc://a:1", "--shard", "1"], "--coordinator must be HOST:PORT without a scheme"),
        (["--bind", "::1:4000"], "an IPv6 address in brackets; received '::1:4000'"),
        (["--bind", "h:65536"], "received 'h:65536'"),
        (["--shard", "1"], "--shard must lie below --shards"),
        (["--shard", "2", "--shards", "2", "--coordinator", "a:1"], "--shard must lie below --shards, 2; received 2"),
        (["--opitmizer", "sgd"], "prog: unknown flag --opitmizer (did you mean --optimizer?)"),
        (["stray"], "prog: unexpected argument 'stray'"),
        (["--epochs"], "prog: --epochs needs a value"),
        (["--epochs", "0"], "prog: `prog --help` lists the flags"),
    ],
)
def test_an_invalid_flag_is_named_with_the_requirement_and_the_value(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(ServerSettings, *argv, capsys=capsys)


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    output = refused(ServerSettings, "--epochs=0", "--seed=-1", "--mode=x", capsys=capsys)
    assert [line.split()[1] for line in output.splitlines()[:-1]] == ["--epochs", "--seed", "--mode"]


def test_a_bad_variable_is_named_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOWNPOUR_EPOCHS", "many")
    output = refused(ServerSettings, capsys=capsys)
    assert "prog: DOWNPOUR_EPOCHS must be a whole number, at least 1; received 'many'" in output


def test_a_contradiction_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOWNPOUR_SHARD", "2")
    assert "(set by DOWNPOUR_SHARD)" in refused(ServerSettings, capsys=capsys)


def test_flags_override_variables_which_override_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWNPOUR_EPOCHS", "4")
    monkeypatch.setenv("DOWNPOUR_SEED", "5")
    settings = parse(ServerSettings, ["--epochs=3"], "prog")
    assert (settings.epochs, settings.seed, settings.batch_size) == (3, 5, 32)


class _Everything(Settings):
    count: int = Field(3, description="a number")
    rate: float | None = Field(None, description="a number or nothing")
    json_: bool = Field(False, description="yes or no")
    loud: bool = Field(True, description="yes or no")
    name: str = Field("x", description="a text of 100 %")


class _Addresses(Settings):
    """Some addresses."""

    follows: ClassVar[str] = "COMMAND"
    own: Address = Field("a:1", description="an address")
    other: Address | None = Field(None, description="an address or nothing")
    loud: bool = Field(True, description="Say all.")


def help_of(kind: type[Settings], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse(kind, ["--help"], "prog")
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_help_says_what_a_value_is(capsys: pytest.CaptureFixture[str]) -> None:
    output = help_of(_Addresses, capsys)
    assert "usage: prog [flags] COMMAND" in output
    assert "--own HOST:PORT" in output and "--other HOST:PORT" in output
    assert "Say all (default: on)." in output
    assert "[DOWNPOUR_OWN]" in output and "A flag takes precedence over its environment variable" in output
    assert "--advertise HOST:PORT" in help_of(ServerSettings, capsys)


def test_an_address_that_may_be_missing_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    output = refused(ServerSettings, "--advertise=a", capsys=capsys)
    assert "--advertise must be HOST:PORT with a port from 0 to 65535; received 'a'" in output


def test_flags_carry_settings_to_another_process() -> None:
    for argv in ([], ["--count=-4", "--rate=1e-05", "--json", "--no-loud", "--name=--a b=c"]):
        settings = parse(_Everything, argv, "prog")
        assert to_flags(settings, _Everything) == argv
        assert parse(_Everything, to_flags(settings, _Everything), "prog") == settings
