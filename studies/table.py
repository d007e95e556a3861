"""Tables of a study: every arm's figures, and how much they differ from the first arm's, paired by seed."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .grid import Study

# 97.5 % quantiles of Student's t by degrees of freedom: half the width of a 95 % interval in standard errors.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

Found = dict[str, Any]
Figure = Callable[[Found], float]


def _percent(name: str) -> Figure:
    return lambda found: 100 * found["figures"].get(name, math.nan)


def _plain(name: str) -> Figure:
    return lambda found: found["figures"].get(name, math.nan)


def _mean_recall(suffix: str) -> Figure:
    names = [f"{way}_retrieval_r{k}{suffix}" for way in ("text", "image") for k in (1, 5, 10)]
    return lambda found: 100 * statistics.fmean(found["figures"].get(name, math.nan) for name in names)


def _last_logged(name: str) -> Figure:
    return lambda found: next((entry[name] for entry in reversed(found["log"]) if name in entry), math.nan)


def _recalls(suffix: str, label: str) -> dict[str, Figure]:
    single = {
        f"{way[0].upper()}R@{k}{label}": _percent(f"{way}_retrieval_r{k}{suffix}")
        for way in ("text", "image")
        for k in (1, 5, 10)
    }
    return {**single, f"mean R{label}": _mean_recall(suffix)}


RETRIEVAL = {**_recalls("", ""), **_recalls("_reranked", " (ITM)"), **_recalls("_combined", " (both)")}
CODEBOOK: dict[str, Figure] = {
    "usage %": _percent("codebook_usage"),
    "perplexity": _plain("codebook_perplexity"),
    "top share %": _percent("codebook_top_share"),
    "stability %": lambda found: 100 * _last_logged("codebook_stability")(found),
    "ln ppl": _plain("ln_perplexity"),
    "MIM CE": _plain("mim"),
    "saved by caption": lambda found: found["figures"].get("mim_shuffled_caption", math.nan) - _plain("mim")(found),
    "MIM acc %": _percent("mim_accuracy"),
    "position floor %": _percent("mim_accuracy_position_floor"),
    "pixel / floor": lambda found: _plain("pixel")(found) / _plain("pixel_floor")(found),
}
COST: dict[str, Figure] = {
    "steps": lambda found: found["steps"],
    "TFLOP": lambda found: found["train_teraflops"],
    "CPU minutes": lambda found: found["train_cpu_seconds"] / 60,
}


def tables(study: Study, cells: Sequence[Found]) -> str:
    """Markdown of all tables of a study, from the results of those cells that are finished."""
    by_arm = {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in study.arms}
    by_arm = {arm: found for arm, found in by_arm.items() if found}
    if not by_arm:
        return f"# {study.name}\n\nNo cell is finished.\n"
    wanted = len(study.arms) * len(study.seeds)
    parts = [f"# {study.name}", f"{len(cells)} of {wanted} cells; mean ± standard deviation over seeds."]
    for title, figures in (("Retrieval", RETRIEVAL), ("Codebook and MIM", CODEBOOK), ("Cost", COST)):
        parts += [f"## {title}", _means(by_arm, figures)]
    if len(by_arm) > 1:
        differences = _differences(by_arm, {**RETRIEVAL, **CODEBOOK})
        parts += [f"## Less {next(iter(by_arm))!r}, paired by seed (95 % interval of the mean)", differences]
    return "\n\n".join(parts) + "\n"


def _means(by_arm: dict[str, dict[int, Found]], figures: dict[str, Figure]) -> str:
    rows = [
        [arm, str(len(found)), *(mean([figure(cell) for cell in found.values()]) for figure in figures.values())]
        for arm, found in by_arm.items()
    ]
    return markdown(["arm", "seeds", *figures], rows)


def mean(values: list[float]) -> str:
    if any(map(math.isnan, values)):
        return "–"
    spread = f" ± {_number(statistics.stdev(values))}" if len(values) > 1 else ""
    if len(set(values)) == 1:
        return _number(values[0])
    return _number(statistics.fmean(values)) + spread


def _differences(by_arm: dict[str, dict[int, Found]], figures: dict[str, Figure]) -> str:
    (_, base), *others = by_arm.items()
    rows = []
    for arm, found in others:
        seeds = sorted(set(base) & set(found))
        cells = [interval([figure(found[seed]) - figure(base[seed]) for seed in seeds]) for figure in figures.values()]
        rows.append([arm, str(len(seeds)), *cells])
    return markdown(["arm", "pairs", *figures], rows)


def interval(differences: Sequence[float]) -> str:
    """Mean of paired differences and its 95 % interval by Student's t, as text; the mean alone of one pair."""
    if not differences or any(map(math.isnan, differences)):
        return "–"
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return f"{_number(mean, signed=True)}"
    half = _T.get(len(differences) - 1, 1.96) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{_number(mean, signed=True)} [{_number(mean - half, signed=True)}, {_number(mean + half, signed=True)}]"


def _number(value: float, signed: bool = False) -> str:
    """A value with about three digits; a whole number as it is."""
    if isinstance(value, int):
        return str(value)
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:{'+' if signed else ''}.{digits}f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
