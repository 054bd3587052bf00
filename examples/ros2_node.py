"""A ROS 2 node: audio comes in on a topic, one JSON Event for each utterance goes out.

  source /opt/ros/humble/setup.bash
  python3 examples/ros2_node.py
  python3 examples/ros2_node.py --ros-args -r audio:=/mic/pcm -p rate:=48000 -p channels:=2 -p asr:=none
  ros2 topic echo /emotion

Takes `audio`, std_msgs/UInt8MultiArray: 16-bit little-endian samples, channels interleaved, chunks of any length.
Gives `emotion`, std_msgs/String: a row of JSON. The package needs no message types beyond ROS 2's own.

Tested against a stand-in for rclpy that delivers messages, not on a real ROS 2. Python must be the one that ROS 2 was
built for, with EdgeSER installed into it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from edgeser import EdgeSerError, Event, InputError, Runtime
from edgeser.runtime.streams import event_row

QUEUE_DEPTH = 50  # messages; a second of 20 ms chunks


class EmotionNode:
    """Connects a stream with two topics.

    Args:
        node: An `rclpy.node.Node`; its parameters `rate`, `channels`, `bundle`, `asr` and `partial` are declared here.
    """

    def __init__(self, node: Any) -> None:
        from std_msgs.msg import String, UInt8MultiArray

        self._node = node
        self._message = String
        self._rate = self._parameter("rate", 16_000)
        self._channels = self._parameter("channels", 1)
        # A recogniser inside would hold the interpreter while it decodes, and messages would be lost meanwhile.
        self._runtime = Runtime.load(
            self._parameter("bundle", "") or None, asr=self._parameter("asr", "auto"), isolate_asr=True
        )
        self._publisher = node.create_publisher(String, "emotion", QUEUE_DEPTH)
        self._stream = self._runtime.open_stream(on_event=self._publish, partial=self._parameter("partial", False))
        node.create_subscription(UInt8MultiArray, "audio", self._hear, QUEUE_DEPTH)

    def close(self) -> None:
        """End the stream; no more Events are published."""
        self._stream.close()
        self._runtime.close()

    def _parameter(self, name: str, default: Any) -> Any:
        return self._node.declare_parameter(name, default).value

    def _hear(self, message: Any) -> None:
        """Push a chunk; one that cannot be used is reported and left out."""
        pcm = bytes(message.data)
        frame_bytes = 2 * self._channels
        try:
            if len(pcm) % frame_bytes:
                raise InputError(f"got {len(pcm)} bytes, expected a multiple of {frame_bytes}")
            self._stream.push(np.frombuffer(pcm, "<i2").reshape(-1, self._channels), self._rate)
        except InputError as error:
            self._node.get_logger().warning(f"audio: {error}: this message is left out")

    def _publish(self, event: Event) -> None:
        message = self._message()
        message.data = json.dumps(event_row(event), ensure_ascii=False)
        self._publisher.publish(message)


def main() -> int:
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException
    except ImportError:
        print(
            "rclpy is not installed: source a ROS 2 first, as in `source /opt/ros/humble/setup.bash`", file=sys.stderr
        )
        return 2
    rclpy.init()
    node = rclpy.create_node("edgeser")
    emotion = None
    try:
        emotion = EmotionNode(node)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except EdgeSerError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if emotion is not None:
            emotion.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
