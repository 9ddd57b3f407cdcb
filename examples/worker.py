#!/usr/bin/env python3
"""A worker for task steps, with a stock NATS client. Run as many as you like; each task goes to one of them.

    python3 examples/worker.py                     # does the four tasks of the example workflow
    python3 examples/worker.py --tasks resize_image
"""

import argparse
import asyncio
import csv
import io
import json
import os
import signal

import nats

from stack import status


def perform(task: dict) -> object:
    """Does a task. Whatever it returns is the step's output; an exception fails the attempt."""
    match task["name"]:
        case "validate_input":
            rows = list(csv.DictReader(io.StringIO(task["input"]["csv"])))
            if not rows or any(not row["quantity"].isdigit() for row in rows):
                raise ValueError("every record needs a whole number as quantity")
            return {"records": len(rows)}
        case "process_data":
            rows = csv.DictReader(io.StringIO(task["input"]["csv"]))
            return {"total_nanos": sum(int(row["quantity"]) * int(row["price_nanos_per_unit"]) for row in rows)}
        case "generate_report":
            return {"report": f"Usage came to {task['previous']['total_nanos'] / 1e9:.2f} USD."}
        case "send_notification":
            return {"to": task["input"].get("notify"), "text": task["previous"]["report"]}
        case other:
            return {"done": other, "with": task["params"]}


async def work(nc, who: str, name: str, stop: asyncio.Event) -> None:
    while not stop.is_set():
        # The server waits up to 5 s for a task; the client a little longer for the server.
        asking = json.dumps({"worker": f"worker.py-{os.getpid()}", "wait_ms": 5_000}).encode()
        try:
            reply = await nc.request(f"work.{who}.{name}", asking, timeout=10)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            await asyncio.sleep(0.5)
            continue
        task = json.loads(reply.data).get("task")
        if task is None:
            continue
        report = {"step": task["step"], "attempt": task["attempt"]}
        try:
            verb, report["output"] = "complete-step", perform(task)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the run has to hear of it
            verb, report["error"] = "fail-step", {"type": type(error).__name__, "message": str(error)}
        # The command id makes it safe to repeat the report until it is answered.
        headers = {"Airstream-Command-Id": f"{task['idempotency_key']}/{task['attempt']}/{verb}"}
        for _ in range(20):
            try:
                answer = await nc.request(f"cmd.{who}.run.{task['run']}.{verb}", json.dumps(report).encode(), timeout=5, headers=headers)
                # Anything that says when to come back has decided nothing yet.
                if "retry_after_ms" not in json.loads(answer.data):
                    print(f"{task['run']} {name} #{task['attempt']} {verb}: {answer.headers['Airstream-Status']}", flush=True)
                    break
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                pass
            await asyncio.sleep(0.5)


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tasks", default="validate_input,process_data,generate_report,send_notification")
    options = options.parse_args()
    stack = status()
    login = stack["nats"]
    nc = await nats.connect(
        login["url"].split(","),
        user=login["user"],
        password=login["password"],
        # Answers come to one's own inbox only: _INBOX.<tenant>.<principal>
        inbox_prefix=login["inbox_prefix"],
        max_reconnect_attempts=-1,
    )
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    who = f"{stack['tenant']}.{stack['principal']}"
    print("waiting for", options.tasks, flush=True)
    await asyncio.gather(*(work(nc, who, name, stop) for name in options.tasks.split(",")))
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main())
