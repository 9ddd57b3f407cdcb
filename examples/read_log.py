#!/usr/bin/env python3
"""Read the log with a stock NATS client and a stock CloudEvents library.

Each message is one commit: a CloudEvents 1.0 JSON batch. Nothing of ours is needed to read it.
"""

import asyncio
import json

import nats
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from stack import status


async def main() -> None:
    stack = status()
    # The log holds what all tenants do: reading it is for whoever runs the platform. Tenants read `GET /v1/events`.
    login = stack["nats"]["reader"]
    nc = await nats.connect(stack["nats"]["url"].split(","), user=login["user"], password=login["password"])
    js = nc.jetstream()
    last = (await js.stream_info("EVENTS")).state.last_seq
    reader = JSONFormat()
    for sequence in range(1, last + 1):
        message = await js.get_msg("EVENTS", seq=sequence)
        assert message.headers["Content-Type"] == "application/cloudevents-batch+json"
        for document in json.loads(message.data):
            event = reader.read(CloudEvent, json.dumps(document))
            print(sequence, event.get_type(), event.get_subject(), event.get_extension("streamversion"), event.get_id())
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main())
