"""Where caches lie, also for a user without a home, as containers and services have them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeser.runtime.caches import cache_folder, ensure_home, expand_user
from edgeser.runtime.errors import InputError

UNKNOWN = "54321"  # a user that the system knows nothing of
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[Run]:
    """Run a program as a user that is in no list, without a home; it may read what root may, this interpreter too."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("another user's process cannot be started here: it needs root and setpriv (util-linux)")
    place = Path(tempfile.mkdtemp(prefix="nobody-"))  # pytest's folders are root's alone
    place.chmod(0o777)
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME")}
    allowed = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    prefix = ["setpriv", "--reuid", UNKNOWN, "--regid", UNKNOWN, "--clear-groups", *allowed]

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, *map(str, arguments)],
            env={**kept, "TMPDIR": str(place), **environment},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    done = run("-c", "pass")
    if done.returncode:
        pytest.skip(f"another user's process cannot be started here: {done.stderr.strip()}")
    yield run
    shutil.rmtree(place)


@pytest.mark.parametrize("home", [{}, {"HOME": "/"}, {"HOME": "/nonexistent"}])
def test_the_device_answers_without_a_home(nobody: Run, clip: Path, home: dict[str, str]) -> None:
    for arguments in (["score", clip], ["demo", clip], ["inspect"], ["score", clip, "--asr", "vosk:xx"]):
        done = nobody("-m", "edgeser.cli.main", *arguments, **home)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == (2 if "vosk:xx" in arguments else 0), done.stderr
    done = nobody("-c", "from edgeser.runtime.recognizer import Runtime; Runtime.load().close()", **home)
    assert done.returncode == 0, done.stderr


def test_a_model_is_trained_without_a_home(nobody: Run, corpus: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    arguments = ["--out", "run", "--folds", "1", "--epochs", "1", "--threads", "1"]
    done = nobody("-m", "edgeser.cli.main", "train", "--corpus", corpus, *arguments)
    assert done.returncode == 0, done.stderr
    done = nobody("-m", "edgeser.cli.main", "evaluate", "run", "--json", "--figures", "figures")
    assert done.returncode == 0, done.stderr
    assert "1" in json.loads(done.stdout)["folds"]
    assert "temporary cache" not in done.stderr


def test_the_place_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    own = tmp_path / f"edgeser-{os.geteuid()}"
    assert cache_folder("plans") == own / ".cache" / "edgeser" / "plans"
    assert own.stat().st_mode & 0o777 == 0o700
    ensure_home()
    assert os.environ["HOME"] == str(own)
    own.chmod(0o777)
    with pytest.raises(InputError, match="is not this user's alone: set XDG_CACHE_HOME to a folder of yours"):
        cache_folder("plans")
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(InputError, match="is not this user's alone"):
        cache_folder("plans")


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_home_is_kept_and_a_named_cache_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("plans") == Path(os.environ["XDG_CACHE_HOME"]) / "edgeser" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/cache")
    assert cache_folder("plans") == tmp_path / ".cache" / "edgeser" / "plans"
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_user_in_a_path_is_one_line() -> None:
    with pytest.raises(InputError, match="corpus: got '~nobody-at-all/x', no such user or home: give the whole path"):
        expand_user("~nobody-at-all/x", "corpus")
