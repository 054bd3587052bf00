"""A microphone without hardware: PulseAudio with a null sink, which ALSA and so PortAudio record from."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

PROGRAMS = ("pulseaudio", "pactl", "paplay")
SINK = "virtual_microphone"
# `left_mic` and `right_mic` hear the same as the default.
ALSA = "\n".join(
    f"{kind}.{name} {{ type pulse }}"
    for kind, name in (("pcm", "!default"), ("ctl", "!default"), ("pcm", "left_mic"), ("pcm", "right_mic"))
)


def missing() -> str:
    """Say why there can be no virtual microphone here; empty if there can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: pulseaudio, pulseaudio-utils)"
    if not any(Path("/usr").glob("lib*/**/alsa-lib/libasound_module_pcm_pulse.so")):
        return "ALSA's pulse plugin is not installed (Debian: libasound2-plugins)"
    return ""


class VirtualMicrophone:
    """A PulseAudio daemon in a home of its own: a program with `environment` hears what `play` plays as its microphone.

    The daemon hands on audio in steps of up to 2 s: a recording may start so late, and end so late.
    """

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="mic-"))  # short: a socket's path has 108 characters at most
        socket = self._home / "native"
        (self._home / "asound.conf").write_text(ALSA + "\n")
        self.environment = {
            "HOME": str(self._home),
            "XDG_RUNTIME_DIR": str(self._home),
            "XDG_CONFIG_HOME": str(self._home / "config"),
            "PULSE_SERVER": f"unix:{socket}",
            "ALSA_CONFIG_PATH": str(self._home / "asound.conf"),
            "JACK_NO_START_SERVER": "1",
        }
        self._socket = socket
        self._daemon: subprocess.Popen[bytes] | None = None
        self._module = ""

    def __enter__(self) -> VirtualMicrophone:
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        """Start the daemon and plug the microphone in."""
        command = [
            "pulseaudio",
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--disable-shm=yes",
        ]
        command += ["--realtime=no", "--high-priority=no", "--log-target=stderr"]
        command += ["-L", f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"]
        with (self._home / "log").open("ab") as log:
            self._daemon = subprocess.Popen(command, env=self._everything(), stdout=log, stderr=log)
        deadline_s = time.monotonic() + 20.0
        while self._run("pactl", "info", check=False).returncode:
            if self._daemon.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"pulseaudio did not start: {(self._home / 'log').read_text(errors='replace')}")
            time.sleep(0.05)
        self.plug()

    def kill(self) -> None:
        """Kill the daemon, as a sound server that crashes."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def freeze(self) -> None:
        """Stop the daemon without ending it, as a driver that hangs."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the daemon go on."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def plug(self) -> None:
        """Put the device in."""
        done = self._run("pactl", "load-module", "module-null-sink", f"sink_name={SINK}", "rate=48000", "channels=1")
        self._module = done.stdout.decode().strip()

    def unplug(self) -> None:
        """Pull the device out."""
        self._run("pactl", "unload-module", self._module)

    def play(self, path: str | os.PathLike[str]) -> None:
        """Play a WAV, FLAC or OGG file into the microphone; return when it has been played."""
        self._run("paplay", f"--device={SINK}", os.fspath(path))

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, env=self._everything(), capture_output=True, check=check, timeout=60)

    def _everything(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)
