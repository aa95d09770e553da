"""Settings of a file come after flags and variables, and before defaults; what is wrong with a file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.engines.settings import EngineRunSettings, EngineTrainSettings
from downpour.deploy.ray.settings import RayRunSettings, RayTrainSettings
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import Settings, parse
from downpour.ps.config import ServerSettings
from downpour.worker.config import WorkerSettings

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_flags_precede_variables_which_precede_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.toml"
    path.write_text('epochs = 2\nseed = 3\nbatch-size = 64\nlearning_rate = 1\noverlap = false\nmode = "bsp"\n')
    monkeypatch.setenv("DOWNPOUR_EPOCHS", "4")
    monkeypatch.setenv("DOWNPOUR_SEED", "5")
    monkeypatch.setenv("DOWNPOUR_MODE", "")
    for kind in (TrainSettings, ServerSettings):
        found = parse(kind, ["--epochs=6", f"--config={path}"], "prog")
        assert (found.epochs, found.seed, found.batch_size, found.learning_rate) == (6, 5, 64, 1.0)
        assert found.mode == "bsp" and found.shards == 1


def test_one_file_serves_all_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.toml"
    path.write_text('server = "127.0.0.1:1"\nepochs = 2\nruns_dir = "r"\nbind = "127.0.0.1:0"\nthreads = 2\n')
    kinds: dict[type[Settings], str] = {
        TrainSettings: "server, bind", RunSettings: "server, epochs, bind", WorkerSettings: "epochs, runs_dir, bind",
        ServerSettings: "server, threads", EngineTrainSettings: "server, bind", RayTrainSettings: "server, bind",
        EngineRunSettings: "server, epochs, bind", RayRunSettings: "server, epochs, bind",
    }  # fmt: skip
    for kind, others in kinds.items():
        parse(kind, ["--config", str(path)], "prog")
        errors = capsys.readouterr().err
        assert errors == f"prog: {path}: settings of other commands have no effect here: {others}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "no command has the setting epoch (did you mean epochs?)"),
        ('epochs = "3"', "epochs must be a whole number, without quotes; received '3'"),
        ("epochs = 3.0", "epochs must be a whole number, without quotes; received 3.0"),
        ("epochs = true", "epochs must be a whole number, without quotes; received True"),
        ("epochs = [3]", "epochs must be a whole number"),
        ("overlap = 1", "overlap must be true or false, without quotes; received 1"),
        ("mode = 3", "mode must be text in quotes; received 3"),
        ("xla = false", "xla must be text in quotes"),
        ('learning-rate = "0.1"', "learning_rate must be a number, without quotes"),
        ("epochs = 0", "--epochs must be a whole number, at least 1; received 0"),
        ("batch-size = 1\nbatch_size = 2", "batch_size must be given once"),
        ("epochs =", "--config must be a TOML file that can be read"),
        ("[train]\nepochs = 3", "no command has the setting train"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_key(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        parse(TrainSettings, [f"--config={path}"], "prog")
    errors = capsys.readouterr().err
    assert stopped.value.code == 2 and message in errors and str(path) in errors


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00", "it is not a text in UTF-8"), (None, "Is a directory")]
)
def test_a_file_that_is_no_text_is_refused(
    content: bytes | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(SystemExit):
        parse(TrainSettings, [f"--config={path}"], "prog")
    assert f"--config must be a TOML file that can be read; {path}: {reason}" in capsys.readouterr().err
