"""Seconds and bytes of exact and of compressed attention."""

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)


WARM_UP = 5


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


def timings(rank: int = 64, repeats: int = 7, heads: int = 4, width: int = 64) -> dict[str, list]:
    """Seconds and bytes of exact and of compressed attention for 1024 queries, by the number of keys n.

    "unfused" is exact too, but forms all of A. Seconds: median, smallest and largest of ``repeats``
    runs; all run in turn, so that a busy machine hits all. Bytes: of the keys, values and biases that
    must be kept, and the peak while attending.
    """
    names = ("exact", "unfused", "landmarks")
    table: dict[str, list] = {name + what: [] for name in names for what in ("", " kept", " peak")}
    table["n"] = list(LENGTHS)
    # torch's fused attention, the fast one, needs four axes; with three it would form all of A.
    queries = gaussian(1, heads, 1024, width, seed=0).float()
    for n in LENGTHS:
        keys, values = gaussian(2, 1, heads, n, width, seed=1).float()
        bias = torch.zeros(1, heads, rank)
        small = Landmarks("timing", keys[..., :rank, :], values[..., :rank, :], bias, width**-0.5)
        runs = {
            "exact": partial(nn.functional.scaled_dot_product_attention, queries, keys, values),
            "unfused": partial(attention, queries, keys, values),
            "landmarks": partial(small.attend, queries),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(WARM_UP + repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
        kept = dict.fromkeys(runs, (keys, values))
        kept["landmarks"] = (small.keys, small.values, small.bias)
        for name, measured in seconds.items():
            table[name].append([statistics.median(measured), min(measured), max(measured)])
            table[f"{name} kept"].append(sum(part.numel() * part.itemsize for part in kept[name]))
            table[f"{name} peak"].append(peak_memory(runs[name]))
    return table


def fitting_time(rank: int) -> dict[str, float]:
    """Seconds to fit learned landmarks for the 72 heads of a document, and to attend exactly once."""
    data = minilm_document(0)
    start = time.perf_counter()
    compress("learned", data["fit"], data["keys"], data["values"], rank)
    fitted = time.perf_counter()
    nn.functional.scaled_dot_product_attention(
        *(data[name][None] for name in ("fit", "keys", "values"))
    )
    return {"fit": fitted - start, "exact": time.perf_counter() - fitted}
