#!/usr/bin/env python3
"""Publish commands with a stock NATS client: define the example workflow, start a run of it, ask twice.

    pip install -r examples/requirements.txt
    cargo run --release -- up --demo          # in another terminal
    python3 examples/publish_command.py
"""

import argparse
import asyncio
import json
import pathlib
import uuid

import nats

from stack import status

HERE = pathlib.Path(__file__).resolve().parent


async def ask(nc, subject: str, body: dict | bytes, command_id: str) -> tuple[int, dict]:
    """One command: a request, answered with an acceptance or with a problem document."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await nc.request(subject, payload, timeout=15, headers={"Airstream-Command-Id": command_id})
    return int(reply.headers["Airstream-Status"]), json.loads(reply.data)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", default=f"run_{uuid.uuid4().hex}", help="the run's id; the same again is the same run")
    options.add_argument("--queue", action="store_true", help="fire and forget, through the durable queue")
    options = options.parse_args()
    stack = status()
    login = stack["nats"]
    nc = await nats.connect(
        login["url"].split(","),
        user=login["user"],
        password=login["password"],
        # Answers come to one's own inbox only: _INBOX.<tenant>.<principal>
        inbox_prefix=login["inbox_prefix"],
    )
    who = f"{stack['tenant']}.{stack['principal']}"

    definition = (HERE / "example-workflow.json").read_bytes()
    print("define:", *await ask(nc, f"cmd.{who}.workflow.wf_12345.define", definition, "define-wf_12345-1"))

    start = {"workflow": "wf_12345", "input": {"csv": (HERE / "usage.csv").read_text(), "notify": "ops@example.com"}}
    if options.queue:
        headers = {"Airstream-Command-Id": f"start-{options.run}"}
        subject = f"queue.{who}.run.{options.run}.start"
        ack = await nc.jetstream().publish(subject, json.dumps(start).encode(), headers=headers)
        print("queued:", ack.stream, ack.seq)
    else:
        subject = f"cmd.{who}.run.{options.run}.start"
        first = await ask(nc, subject, start, f"start-{options.run}")
        again = await ask(nc, subject, start, f"start-{options.run}")
        print("start: ", *first)
        print("the same command id again gives", "the same answer" if again == first else f"ANOTHER ANSWER: {again}")
    print(f"watch it:  airstream workflows runs watch {options.run}")
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main())
