"""The memory that a call needs."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def peak_memory(run: Callable[[], Tensor]) -> int:
    """Most bytes that ``run`` holds at once beyond what existed before, its result included."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()  # kept alive until the profile ends
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(path := f"{folder}/trace.json")
        events = json.loads(Path(path).read_text(encoding="utf-8"))["traceEvents"]
    del result
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak
