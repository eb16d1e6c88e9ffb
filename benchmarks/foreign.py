"""A producer without our SDK: one event a message, confirmed, from a plain AMQP client.

Run as ``python -m benchmarks.foreign LOAD``; talks as `benchmarks.producer` does. Up to 200 messages await their confirms
at a time, as a careful program in any language would do it.
"""

from __future__ import annotations

import os
import time
import uuid

import kombu

from benchmarks.load import from_command_line, report, wait_for_go
from taximeter import names

WINDOW = 200


class Confirms:
    """Counts what the broker has confirmed, on one channel."""

    def __init__(self, channel: kombu.transport.base.StdChannel) -> None:
        self.sent = self.confirmed = 0
        self._channel = channel
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self.confirmed = delivery_tag if multiple else self.confirmed + 1

    def wait(self, outstanding: int) -> None:
        """Wait until at most this number is outstanding."""
        while self.sent - self.confirmed > outstanding:
            self._channel.connection.drain_events(timeout=60)


def main() -> None:
    load = from_command_line()
    workspaces = load.workspace_ids()
    body = (
        '{"specversion":"1.0","id":"%s","source":"/foreign/%d","type":"%s","subject":"%s","time":"%s","data":{"tool":"chat",'
        '"provider":"openai","model":"gpt-4o","quantities":{"input_tokens":1200,"output_tokens":300}}}'
    )
    with kombu.Connection(os.environ["TAXIMETER_BROKER_URL"]) as connection, connection.channel() as channel:
        confirms = Confirms(channel)
        pid = os.getpid()
        wait_for_go()
        start = time.monotonic()
        for workspace_id in workspaces:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            message = channel.prepare_message(
                (body % (uuid.uuid4(), pid, names.USAGE_TYPE, workspace_id, now)).encode(),
                content_type=names.CONTENT_TYPE_EVENT,
                content_encoding="utf-8",
                properties={"delivery_mode": 2},
            )
            channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=names.USAGE_ROUTING_KEY, mandatory=True)
            confirms.sent += 1
            if confirms.sent - confirms.confirmed >= WINDOW:
                confirms.wait(WINDOW // 2)
        recorded = time.monotonic()
        confirms.wait(0)
        report(start=start, recorded=recorded, confirmed=time.monotonic())


if __name__ == "__main__":
    main()
