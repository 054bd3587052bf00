"""Signatures of bundles. `signed/` holds one in both forms, signed once by minisign 0.11 with a key that is gone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'edgeser[trust]'")

import edgeser
from edgeser.cli.main import main
from edgeser.runtime.bundle import MANIFEST, Bundle, write_bundle
from edgeser.runtime.bundle_files import ZipFiles
from edgeser.runtime.errors import BundleError, InputError, MissingDependencyError
from edgeser.runtime.recognizer import default_bundle
from edgeser.runtime.scoring.scorers import Setup
from edgeser.runtime.trust import PublicKey, Signature

SIGNED = Path(__file__).parent / "signed"
KEY = SIGNED / "maker.pub"
ID = "527F95F0B47FEC0E"
COMMENT = "EdgeSER's tests: tiny 1.0"
OTHER = base64.b64encode(b"Ed" + bytes(40)).decode()
FORMS = {"tiny.edgeser": "tiny.edgeser.minisig", "tiny": "tiny/manifest.json.minisig"}


@pytest.fixture(params=FORMS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A signed bundle, to be changed at will."""
    shutil.copytree(SIGNED, tmp_path / "signed")
    return tmp_path / "signed" / str(request.param)


def signature_of(bundle: Path) -> Path:
    return bundle.parent / FORMS[bundle.name]


def refusal(bundle: Path, trusted: str | Path = KEY) -> str:
    with pytest.raises(BundleError, match=bundle.name) as caught:
        Bundle.open(bundle, trusted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("given", [KEY, str(KEY), KEY.read_text().split()[-1]], ids=["path", "name", "key"])
def test_signed_with_the_trusted_key(bundle: Path, given: str | Path) -> None:
    assert Bundle.open(bundle, given).signature == Signature(ID, COMMENT)
    assert Bundle.open(bundle).signature is None  # not asked for, not checked


def test_not_signed(bundle: Path) -> None:
    signature_of(bundle).unlink()
    assert f"not signed: {signature_of(bundle)} is missing: get it from where the bundle comes from" in refusal(bundle)
    Bundle.open(bundle)


def test_signed_by_someone_else(bundle: Path) -> None:
    assert f"signed with key {ID}, trusted is 0000000000000000" in refusal(bundle, OTHER)
    raw = bytearray(PublicKey.read(KEY).raw)
    raw[20] ^= 1  # the same id, another key
    assert f"no signature of key {ID} over this bundle" in refusal(bundle, base64.b64encode(raw).decode())


def test_another_bundle_properly_sealed(bundle: Path, tmp_path: Path) -> None:
    """What hashes cannot tell: whoever changes a bundle makes new hashes."""
    manifest = Bundle.open(bundle).manifest
    files = {"model.onnx": b"", "README.md": b"other\n"}
    (tmp_path / "other").mkdir()
    other = write_bundle(tmp_path / "other" / bundle.name, manifest, files)
    shutil.copy(signature_of(bundle), other.path.parent / FORMS[bundle.name])
    assert f"no signature of key {ID} over this bundle: do not use it, fetch it again" in refusal(other.path)


@pytest.mark.parametrize("line", range(4))
def test_any_character_of_a_signature_changed(bundle: Path, line: int) -> None:
    lines = signature_of(bundle).read_text().splitlines()
    for at in range(0, len(lines[line]), 7):
        changed = lines[line][:at] + ("A" if lines[line][at] != "A" else "B") + lines[line][at + 1 :]
        signature_of(bundle).write_text("\n".join([*lines[:line], changed, *lines[line + 1 :]]) + "\n")
        if line == 0 and at >= len("untrusted comment: "):
            Bundle.open(bundle, KEY)  # nobody signs that
        else:
            refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"RWQ", b"untrusted comment: a\nb\ntrusted comment: c\nd\n", bytes(20_000)]
)
def test_files_that_are_no_signature(bundle: Path, content: bytes) -> None:
    signature_of(bundle).write_bytes(content)
    assert "not readable as a signature of minisign" in refusal(bundle)


def test_a_folder_in_a_signature_s_place(bundle: Path) -> None:
    signature_of(bundle).unlink()
    signature_of(bundle).mkdir()
    assert "not readable as a signature of minisign" in refusal(bundle)


def test_the_old_form_is_refused(bundle: Path) -> None:
    shutil.copy(SIGNED / "old-form.minisig", signature_of(bundle))
    assert "signed in minisign's old form (-l): have it signed again without" in refusal(bundle)


@pytest.mark.parametrize(
    "given", ["", "nonsense", "RWQ", "no such.pub", "a\0b", OTHER[:-4], SIGNED, SIGNED / "tiny.edgeser"]
)
def test_what_is_no_key(given: str | Path) -> None:
    with pytest.raises(InputError, match=r"trusted: got .*, expected minisign's public key \(RW…\) or its file"):
        Bundle.open(SIGNED / "tiny.edgeser", given)


def test_a_zip_that_changes_while_it_is_read() -> None:
    """The manifest that is used is the one that was signed: another cannot stand there for a moment."""
    files = ZipFiles(SIGNED / "tiny.edgeser")
    raw = Bundle.open(SIGNED / "tiny.edgeser").manifest.to_json()
    with pytest.raises(BundleError, match=r"manifest\.json: changed while it was read"):
        files.signed(MANIFEST, raw.replace(b"tiny", b"tidy"))


def test_files_changed_after_signing(bundle: Path) -> None:
    if bundle.is_dir():
        (bundle / "model.onnx").write_bytes(b"\x08\x0a\x12\x08a Graph\n")
        assert "model.onnx: damaged" in refusal(bundle)
    else:
        raw = bundle.read_bytes()
        bundle.write_bytes(raw.replace(b"a graph", b"a Graph"))
        assert f"no signature of key {ID}" in refusal(bundle)


def test_without_the_library(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cryptography", "cryptography.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeser\[trust\]'"):
        Bundle.open(bundle, KEY)


def test_a_runtime_loads_what_is_signed(tmp_path: Path, sign: Callable[[Path], Path]) -> None:
    place = tmp_path / "model.edgeser"
    shutil.copy(default_bundle(), place)
    key = sign(place)
    with edgeser.Runtime.load(place, engine="onnxruntime", asr="none", trusted=key) as runtime:
        assert runtime.bundle.signature is not None
    for load in (
        lambda: edgeser.Runtime.load(place, asr="none", trusted=OTHER),
        lambda: edgeser.Runtime.load(asr="none", trusted=key),
        Setup(place, "onnxruntime", "none", trusted=OTHER).load,
    ):
        with pytest.raises(BundleError, match=r"trusted is 0000000000000000|not signed"):
            load()


@pytest.fixture(scope="module")
def minisign() -> str:
    tool = shutil.which("minisign")
    if tool is None:
        pytest.skip("needs minisign (apt install minisign)")
    return tool


@pytest.fixture
def sign(minisign: str, tmp_path: Path) -> Callable[[Path], Path]:
    """Sign a file with the real tool and a new key; return the key's public file."""

    def run(*arguments: str | Path) -> None:
        subprocess.run([minisign, *map(str, arguments)], check=True, capture_output=True, timeout=60)

    def signed(file: Path) -> Path:
        run("-G", "-W", "-f", "-p", tmp_path / "own.pub", "-s", tmp_path / "own.key")
        run("-S", "-s", tmp_path / "own.key", "-m", file, "-t", "größer: 1.0 \t✓")
        return tmp_path / "own.pub"

    return signed


def test_the_real_tool_signs_what_we_accept(bundle: Path, sign: Callable[[Path], Path]) -> None:
    key = sign(bundle / MANIFEST if bundle.is_dir() else bundle)
    signature = Bundle.open(bundle, key).signature
    assert signature is not None
    assert signature.comment == "größer: 1.0 \t✓"
    assert signature.key in key.read_text()  # in its comment
    assert f"signed with key {signature.key}, trusted is {ID}" in refusal(bundle)


def test_the_real_tool_accepts_the_fixtures(minisign: str) -> None:
    for name in ("tiny.edgeser", "tiny/manifest.json"):
        subprocess.run([minisign, "-V", "-p", KEY, "-m", SIGNED / name], check=True, capture_output=True, timeout=60)


def test_inspect_says_what_hashes_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(SIGNED / "tiny.edgeser")]) == 0
    assert "origin     not checked: hashes tell that it is whole, not who made it" in capsys.readouterr().out
    assert main(["inspect", str(SIGNED / "tiny.edgeser"), "--trusted", str(KEY)]) == 0
    assert f"origin     signed with the trusted key {ID}: {COMMENT}" in capsys.readouterr().out
    assert main(["inspect", str(SIGNED / "tiny"), "--trusted", str(KEY), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"] == {"key": ID, "comment": COMMENT}


@pytest.mark.parametrize(
    "command", [["inspect"], ["score", "CLIP", "--bundle"], ["listen", "--wav", "CLIP", "--bundle"]]
)
def test_commands_refuse_in_one_line(command: list[str], clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(clip) if argument == "CLIP" else argument for argument in command]
    assert main([*arguments, str(SIGNED / "tiny.edgeser"), "--trusted", OTHER]) == 2
    error = capsys.readouterr().err
    assert "trusted is 0000000000000000" in error
    assert error.count("\n") == 1
