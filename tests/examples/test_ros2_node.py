"""The node against a stand-in for rclpy: it delivers messages and nothing else; audio, model and JSON are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "ros2_node.py"

# `spin` delivers a recording and a second of silence in chunks of 20 ms, waits for what comes back, and shuts down.
RCLPY = """
import os, time, types
import numpy as np, soundfile
from std_msgs.msg import UInt8MultiArray
from rclpy.executors import ExternalShutdownException

class Publisher:
    def publish(self, message):
        print(message.data, flush=True)
        node.published += 1

class Node:
    published = 0
    def declare_parameter(self, name, default):
        value = type(default)(os.environ.get("PARAM_" + name, default))
        return types.SimpleNamespace(value=value)
    def create_publisher(self, kind, topic, depth):
        assert (kind.__name__, topic, depth > 0) == ("String", "emotion", True)
        return Publisher()
    def create_subscription(self, kind, topic, callback, depth):
        assert (kind, topic, depth > 0) == (UInt8MultiArray, "audio", True)
        self.callback = callback
    def get_logger(self):
        return types.SimpleNamespace(warning=lambda text: print("warning:", text, flush=True))
    def destroy_node(self):
        print("destroyed", flush=True)

def init():
    pass

def create_node(name):
    global node
    node = Node()
    return node

def deliver(data):
    message = UInt8MultiArray()
    message.data.frombytes(data)
    node.callback(message)

def spin(node):
    deliver(b"abc")
    pcm, rate = soundfile.read(os.environ["RECORDING"], dtype="int16", always_2d=True)
    assert rate == int(os.environ["PARAM_rate"])
    pcm = np.concatenate([pcm, np.zeros((rate, pcm.shape[1]), np.int16)])
    for begin in range(0, len(pcm), rate // 50):
        deliver(pcm[begin : begin + rate // 50].tobytes())
    limit = time.monotonic() + 30
    while not node.published and time.monotonic() < limit:
        time.sleep(0.02)
    raise ExternalShutdownException

def try_shutdown():
    print("shut down", flush=True)
"""
MESSAGES = """
import array
class String:
    data = ""
class UInt8MultiArray:
    def __init__(self):
        self.data = array.array("B")
"""


@pytest.fixture
def ros(tmp_path: Path) -> Path:
    for name, text in {
        "rclpy/__init__.py": RCLPY,
        "rclpy/executors.py": "class ExternalShutdownException(Exception): pass",
        "std_msgs/__init__.py": "",
        "std_msgs/msg.py": MESSAGES,
    }.items():
        file = tmp_path / "ros" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "ros"


def run(ros: Path, **environment: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ros), **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False, timeout=120, env=variables
    )


def test_without_ros_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "rclpy is not installed: source a ROS 2 first, as in `source /opt/ros/humble/setup.bash`\n"


def test_a_clip_on_the_topic_becomes_json_and_a_broken_message_a_warning(ros: Path, clip: Path) -> None:
    done = run(ros, RECORDING=clip, PARAM_rate=16_000, PARAM_asr="none")
    assert done.returncode == 0, done.stderr
    warning, *rows, destroyed, ended = done.stdout.splitlines()
    assert warning == "warning: audio: got 3 bytes, expected a multiple of 2: this message is left out"
    assert (destroyed, ended) == ("destroyed", "shut down")
    assert len(rows) == 1
    event = json.loads(rows[0])
    probabilities = {name[2:]: p for name, p in event.items() if name.startswith("p_")}
    assert event["label"] == max(probabilities, key=probabilities.__getitem__)
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-4)
    assert 0 < event["start_s"] < event["end_s"] < 4.5
    assert (event["utterance"], event["partial"], event["words_from"]) == (0, False, "off")


def test_a_bundle_that_is_not_there_is_one_clear_line(ros: Path, tmp_path: Path, clip: Path) -> None:
    missing = tmp_path / "none.edgeser"
    done = run(ros, RECORDING=clip, PARAM_rate=16_000, PARAM_asr="none", PARAM_bundle=missing)
    assert done.returncode == 1
    assert done.stderr.startswith(str(missing))
    assert done.stderr.count("\n") == 1
    assert done.stdout == "destroyed\nshut down\n"
