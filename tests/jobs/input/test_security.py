"""Access control: every call without the token is refused, and nothing listens beyond loopback without protection."""

from __future__ import annotations

import ast
import inspect
import os
import stat
import textwrap
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from downpour.deploy.certs import CertsSettings, certs
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.access.job_tokens import is_loopback
from downpour.protos.channel import CLIENT_OPTIONS
from downpour.protos.credentials import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    SERVER_NAME,
    TOKEN,
    TOKEN_KEY,
    AccessSettings,
    Identity,
    NotSecured,
    TokenCheck,
    check_secured,
    identity_of,
)
from downpour.ps.server import FAILED
from downpour.worker.config import named
from tests.support.cluster import DEADLINE_S, Cluster, running
from tests.support.paths import ROOT

TOKEN_TEXT = "a-token-that-is-long-enough"
METHODS = [
    *(
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ),
    "/grpc.health.v1.Health/Check",
    "/no.such.Service/Method",
]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a server that requires a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN_TEXT + "\n")
    with running(folder, 1, token_file=folder / "token") as cluster:
        yield cluster


def call(address: str, method: str, shown: str | None) -> grpc.StatusCode:
    """Return the status of a call that sends only its metadata."""
    metadata = ((TOKEN_KEY, shown),) if shown is not None else ()
    with grpc.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        replies = channel.stream_stream(method, None, None)(iter(()), metadata=metadata, timeout=DEADLINE_S)
        try:
            list(replies)
        except grpc.RpcError as failure:
            code = failure.code()
            assert isinstance(code, grpc.StatusCode)
            return code
        return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shown", [None, "", TOKEN_TEXT, "Bearer ", "Bearer " + TOKEN_TEXT[:-1], "Bearer " + TOKEN_TEXT + "x"]
)
def test_every_call_without_the_token_is_refused(guarded: Cluster, method: str, shown: str | None) -> None:
    assert call(guarded.address, method, shown) == grpc.StatusCode.UNAUTHENTICATED


def test_a_call_with_the_token_gets_through(guarded: Cluster) -> None:
    assert call(guarded.address, "/no.such.Service/Method", "Bearer " + TOKEN_TEXT) == grpc.StatusCode.UNIMPLEMENTED


def test_the_token_is_in_no_log_and_no_file(guarded: Cluster) -> None:
    for path in guarded.folder.rglob("*"):
        if path.is_file() and path != guarded.folder / "token":
            assert TOKEN_TEXT.encode() not in path.read_bytes(), path
    assert TOKEN_TEXT not in repr(Identity(token=TOKEN_TEXT))


def calls_in(package: str) -> Iterator[tuple[Path, str, ast.Call]]:
    """Return every call in the sources of a package, by the name that is called."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), node


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy"])
def test_nothing_that_is_received_can_become_code(package: str) -> None:
    """No pickle, eval or exec; modules are imported only by names on a worker's own command line."""
    own_flags = {ROOT / "worker" / "catalog" / "user_models.py"}  # `named` hands it no function that came over the wire
    own_flags.add(ROOT / "protos" / "job_file" / "toml_settings.py")  # imports the commands that its source names
    own_flags.add(ROOT / "protos" / "transports.py")  # the name of a row is looked up, and the row stands in the source
    for path, name, call in calls_in(package):
        assert name not in ("eval", "exec", "compile", "__import__"), (path, name)
        assert name.split(".")[0] not in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"), (path, name)
        literal = bool(call.args) and isinstance(call.args[0], ast.Constant)  # a name that stands in the source itself
        if (name.endswith("import_module") and not literal) or name.startswith("runpy."):
            # A script, and a module of the package, are named on the command line; LocalCluster's own folder names the
            # modules of its caller's model.
            named_there = {"worker/fit/process/main_module.py", "worker/fit/notebook_fit.py", "deploy/command.py"}
            named_there |= {"deploy/variables.py", "deploy/completion.py"}  # these names stand in the source
            assert path in own_flags | {ROOT / name for name in named_there}, path
        if name == "np.load":
            given = {word.arg: word.value for word in call.keywords}
            assert isinstance(given["allow_pickle"], ast.Constant) and given["allow_pickle"].value is False, path


@pytest.mark.parametrize("name", ["os:system", "../../etc/passwd", "/etc/passwd", "data.npz"])
def test_a_received_name_is_never_used_as_a_function_or_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="never accepted from the server"):
        named(None, name, "model")
    assert named("my.module:build", name, "model") == "my.module:build"


def test_tokens_are_compared_in_constant_time() -> None:
    """The only comparison is hmac.compare_digest, which does not stop at the first difference."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(TokenCheck.intercept_service)))
    called = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert called.count("hmac.compare_digest") == 1
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert compared == ["key == TOKEN_KEY"]


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_a_job_with_tls_and_a_token_trains(tmp_path: Path, transport: str) -> None:
    """Beyond loopback, on two shards, by a worker that has the certificate of the authority and the token only."""
    servers, workers = tmp_path / "servers", tmp_path / "workers"
    assert certs(CertsSettings(folder=str(servers))) == 0
    workers.mkdir()
    for name in (AUTHORITY, TOKEN):
        (workers / name).write_bytes((servers / name).read_bytes())
    cluster = Cluster(tmp_path)
    flags = [f"--tls-dir={servers}", "--shards=2", "--bind=0.0.0.0:0", "--advertise=127.0.0.1:1", "--workers=1"]
    try:
        first = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", "--epochs=1", *flags)
        refused = first.announcement()["address"]
        assert refused == "127.0.0.1:1"  # as advertised, although no process listens there
        first.kill()
        flags[2:4] = ["--bind=127.0.0.1:0"]
        first = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={tmp_path / 'run2'}", "--epochs=1", *flags)
        address = str(first.announcement()["address"])
        cluster.start("ps-1", "-m", "downpour.ps", "--shard=1", f"--coordinator={address}", *flags).announcement()
        env = {"DOWNPOUR_TLS_DIR": str(workers)}
        train = ["-m", "tests.support.numpy_worker", "train", f"--server={address}", "--size=100"]
        stranger = cluster.start("stranger", *train, env={"DOWNPOUR_TLS_DIR": str(_without_token(workers))})
        assert stranger.wait() != 0
        assert "AccessDenied" in stranger.errors
        assert cluster.start("worker", *train, env=env).wait() == 0
        assert first.wait() == 0
    finally:
        cluster.close()


def _without_token(folder: Path) -> Path:
    other = folder.parent / "stranger"
    other.mkdir()
    (other / AUTHORITY).write_bytes((folder / AUTHORITY).read_bytes())
    return other


@pytest.mark.parametrize("lacks", ["both", "tls", "token"])
def test_nothing_listens_beyond_loopback_unprotected(tmp_path: Path, lacks: str) -> None:
    assert certs(CertsSettings(folder=str(tmp_path / "certs"))) == 0
    (tmp_path / "token").write_text(TOKEN_TEXT)
    flags = {"both": [], "tls": [f"--token-file={tmp_path / 'token'}"], "token": [f"--tls-dir={tmp_path / 'certs'}"]}
    if lacks == "token":
        (tmp_path / "certs" / TOKEN).unlink()
    cluster = Cluster(tmp_path)
    try:
        server = cluster.start(
            "ps-0", "-m", "downpour.ps", "--bind=0.0.0.0:0", f"--run-dir={cluster.run}", *flags[lacks]
        )
        assert server.wait() == FAILED
        assert "must have TLS and a token" in server.errors and "--insecure" in server.errors
        assert not cluster.run.exists()
        insecure = cluster.start(
            "ps-1", "-m", "downpour.ps", "--bind=0.0.0.0:0", "--insecure", f"--run-dir={cluster.run}", *flags[lacks]
        )
        insecure.announcement()
    finally:
        cluster.close()


@pytest.mark.parametrize(
    "bind, inside",
    [
        ("127.0.0.1:0", True), ("127.9.9.9:1", True), ("localhost:0", True), ("[::1]:0", True),
        ("0.0.0.0:0", False), ("[::]:0", False), ("10.0.0.1:0", False), ("example.org:0", False),
        ("[::ffff:1.2.3.4]:0", False),
    ],
)  # fmt: skip
def test_only_loopback_needs_no_protection(bind: str, inside: bool) -> None:
    assert is_loopback(bind) == inside
    whole = Identity(TOKEN_TEXT, b"ca", b"certificate", b"key")
    check_secured(bind, whole, insecure=False)
    check_secured(bind, Identity(), insecure=True)
    if not inside:
        with pytest.raises(NotSecured, match="a token"):
            check_secured(bind, Identity("", b"ca", b"certificate", b"key"), insecure=False)


def test_certificates_are_created_once_and_keys_readable_only_by_the_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryptography import x509

    folder = tmp_path / "certs"
    assert certs(CertsSettings(folder=str(folder))) == 0
    modes = {path.name: stat.S_IMODE(os.stat(path).st_mode) for path in folder.iterdir()}
    assert modes == {AUTHORITY: 0o644, CERTIFICATE: 0o644, KEY: 0o600, TOKEN: 0o600}
    server = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    server.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes()))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert SERVER_NAME in names.get_values_for_type(x509.DNSName)
    assert certs(CertsSettings(folder=str(folder))) == 2
    assert "must be new or empty" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["short", "a token with a line\nin the middle", "ünprintable-in-ASCII-metadata"])
def test_a_bad_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(NotSecured, match="at least 16 printable") as caught:
        identity_of(AccessSettings(token_file=str(tmp_path / "token")))
    assert token not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotSecured, match="--token-file"):
        identity_of(AccessSettings(token_file=str(tmp_path / "nowhere")))
    with pytest.raises(NotSecured, match="--tls-dir"):
        identity_of(AccessSettings(tls_dir=str(tmp_path)))
