"""Where the running stack is: what `airstream status --json` says, or AIRSTREAM_STATUS (a file with that document)."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def status() -> dict:
    if path := os.environ.get("AIRSTREAM_STATUS"):
        return json.loads(pathlib.Path(path).read_text())
    binary = os.environ.get("AIRSTREAM") or next(
        (str(p) for p in (ROOT / "target/release/airstream", ROOT / "target/debug/airstream") if p.exists()), "airstream"
    )
    done = subprocess.run([binary, "status", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip() or "no stack is running: start one with `cargo run --release -- up`")
    return json.loads(done.stdout)
