"""The tables and sentences of a run, as Markdown."""

import statistics

from benchmarks.peers.turns import best_peer, ratios

BEGIN, END = "<!-- tables -->", "<!-- end -->"
MIB = 2**20


def markdown(heads, lines):
    """A table."""
    whole = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in whole)


def quartiles(numbers):
    """The median and the quartiles."""
    if len(numbers) < 2:
        return (numbers[0],) * 3
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return middle, low, high


def milliseconds(seconds):
    middle, low, high = quartiles([1e3 * s for s in seconds])
    return f"{middle:,.0f} ({low:,.0f}–{high:,.0f})"


def times(found):
    """A ratio and its quartiles."""
    if found is None:
        return "–"
    low, middle, high = found
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def timing(table):
    """One line an implementation."""
    first = table[0]
    lines = []
    for found in table:
        if found.error is not None:
            lines.append([found.row.label, f"not measured: {escape(found.error)}", *["–"] * 4])
            continue
        ratio = ratios(first, found) if first.error is None else None
        lines.append(
            [
                found.row.label,
                milliseconds(found.seconds),
                f"{1e3 * statistics.median(found.processor):,.0f}",
                times(ratio),
                "–" if found.off is None else f"{found.off:.0e}",
                "–" if found.bytes is None else f"{found.bytes / MIB:,.0f}",
            ]
        )
    heads = [
        "implementation",
        "ms (quartiles)",
        "of the processor",
        "× the first row's speed (quartiles)",
        "gradient off by",
        "MiB at the peak",
    ]
    return markdown(heads, lines)


def escape(text, longest=200):
    text = text.replace("|", "/")
    return text if len(text) <= longest else text[: longest - 1] + "…"


def against_peers(table, name="pullback"):
    """Which peer is best, and how far ahead of it pullback is."""
    own = next((f for f in table if f.row.name == name and f.error is None), None)
    best = best_peer(table)
    if own is None or best is None or not own.seconds:
        return "No peer to compare with."
    return f"Best peer: {best.row.label}; pullback is {times(ratios(best, own))} times as fast."


def ceiling(gemm, mkl, own, first, details, parts):
    """The products alone, what share of pullback's time they are, and where the rest goes."""
    operations = details["operations"]
    least = statistics.median(gemm.seconds)
    took = statistics.median(own.seconds)
    lines = [
        ["the meta-step's matrix products", f"{operations / 1e9:.1f}·10⁹ operations"],
        ["alone, each in its fastest form, one JAX program", rate(gemm.seconds, operations)],
    ]
    if mkl is not None and mkl.error is None:
        lines.append(["the same in PyTorch, likewise", rate(mkl.seconds, operations)])
    lines.append(["pullback's whole meta-step", rate(own.seconds, operations)])
    lines.append(["products alone / pullback's time", f"{least / took:.0%}"])
    text = [markdown(["what", "ms (quartiles)"], lines)]
    if first.error is None:
        slow = statistics.median(first.seconds)
        verdict = "more than the ceiling gives" if slow / 10 < least else "within the ceiling"
        text.append(
            f"Ten times the authors' way would be {1e3 * slow / 10:,.0f} ms a meta-step; the "
            f"products alone take {1e3 * least:,.0f} ms, which is {slow / least:.1f} times the "
            f"authors' way. So ten times is {verdict}."
        )
    if parts:
        whole = sum(parts.values())
        ordered = sorted(parts.items(), key=lambda pair: -pair[1])
        shares = [[name, f"{1e3 * s:,.1f}", f"{s / whole:.0%}"] for name, s in ordered]
        text.append(
            "Where pullback's time goes, by the profiler (one thread):\n\n"
            + markdown(["operations", "ms", "share"], [*shares, ["all", f"{1e3 * whole:,.1f}", ""]])
        )
    return "\n\n".join(text)


def rate(seconds, operations):
    speed = operations / statistics.median(seconds) / 1e9
    return f"{milliseconds(seconds)}, {speed:,.0f}·10⁹ a second"


def products(details):
    """Each product, how often, and how fast in its fastest form."""
    rows = sorted(details["products"], key=lambda r: -r["count"] * r["seconds"])
    lines = [
        [
            r["product"],
            str(r["count"]),
            f"{1e6 * r['seconds']:,.1f}",
            f"{r['operations'] / r['seconds'] / 1e9:,.0f}",
        ]
        for r in rows
        if r["count"] * r["operations"] > 1e6
    ]
    return markdown(["product", "times a task", "µs", "10⁹ a second"], lines)


def accuracy(table, errors, settings, tolerance):
    """Time to a meta-gradient within a tolerance, one line an implementation."""
    first = table[0]
    lines = []
    for found in table:
        setting = settings.get(found.row.name)
        if found.error is not None or setting is None:
            why = found.error or "no setting reached it"
            lines.append([found.row.label, f"not measured: {escape(why)}", *["–"] * 4])
            continue
        lines.append(
            [
                found.row.label,
                describe(setting),
                milliseconds(found.seconds),
                f"{1e3 * statistics.median(found.processor):,.0f}",
                times(ratios(first, found)) if first.error is None else "–",
                f"{errors[found.row.name]:.1%}",
            ]
        )
    heads = [
        f"to within {tolerance:.0%}",
        "settings",
        "ms (quartiles)",
        "of the processor",
        "× the first row's speed (quartiles)",
        "median error",
    ]
    return markdown(heads, lines)


def describe(setting):
    """A setting in a few words."""
    if setting.options.get("solver") == "lbfgs":
        inner = f"L-BFGS {setting.inner_steps}, {setting.options.get('history', 6)} pairs"
    elif setting.options.get("solver") == "projected":
        inner = f"projected {setting.inner_steps}"
    else:
        inner = f"{setting.inner_steps} steps of {setting.learning_rate:g}"
        if setting.momentum:
            inner += f", momentum {setting.momentum:g}"
    kind = "preconditioned CG" if setting.options.get("preconditioned") else "CG"
    return f"{inner}; {kind} {setting.linear_steps}"


def insert(document, text):
    """A document with what stands between its two marks replaced.

    Raises:
        ValueError: if the marks are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END} in the document")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
