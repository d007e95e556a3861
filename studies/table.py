"""Writes the tables of a study: the metrics of every arm, and their differences from the first's, paired by seed."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .grid import Study

# 97.5 % quantiles of Student's t by degrees of freedom: half the width of a 95 % interval, in standard errors.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

Result = dict[str, Any]  # what a cell wrote
Metric = Callable[[Result], float]


def _percent(name: str) -> Metric:
    return lambda result: 100 * result["figures"].get(name, math.nan)


def _percent_then(name: str) -> Metric:
    return lambda result: 100 * (result.get("then") or {}).get(name, math.nan)


def _plain(name: str) -> Metric:
    return lambda result: result["figures"].get(name, math.nan)


def _mean_recall(suffix: str) -> Metric:
    names = [f"{way}_retrieval_r{k}{suffix}" for way in ("text", "image") for k in (1, 5, 10)]
    return lambda result: 100 * statistics.fmean(result["figures"].get(name, math.nan) for name in names)


def _last_logged(name: str) -> Metric:
    return lambda result: next((entry[name] for entry in reversed(result["log"]) if name in entry), math.nan)


def _recalls(suffix: str, label: str) -> dict[str, Metric]:
    single = {
        f"{way[0].upper()}R@{k}{label}": _percent(f"{way}_retrieval_r{k}{suffix}")
        for way in ("text", "image")
        for k in (1, 5, 10)
    }
    return {**single, f"mean R{label}": _mean_recall(suffix)}


RETRIEVAL = {**_recalls("", ""), **_recalls("_reranked", " (ITM)"), **_recalls("_combined", " (both)")}
CODEBOOK: dict[str, Metric] = {
    "usage %": _percent("codebook_usage"),
    "perplexity": _plain("codebook_perplexity"),
    "top share %": _percent("codebook_top_share"),
    "stability %": lambda result: 100 * _last_logged("codebook_stability")(result),
    "ln ppl": _plain("ln_perplexity"),
    "MIM CE": _plain("mim"),
    "saved by caption": lambda result: _plain("mim_shuffled_caption")(result) - _plain("mim")(result),
    "MIM acc %": _percent("mim_accuracy"),
    "position floor %": _percent("mim_accuracy_position_floor"),
    "pixel / floor": lambda result: _plain("pixel")(result) / _plain("pixel_floor")(result),
}
MEANING: dict[str, Metric] = {
    "bits": _plain("bits_per_token"),
    "purity": _plain("code_purity"),
    "floor of purity": _plain("code_purity_floor"),
    "information": _plain("code_word_mutual_information"),
    "floor of information": _plain("code_word_mutual_information_floor"),
    "probe %": _percent("code_probe_accuracy"),
    "floor of probe %": _percent("code_probe_accuracy_floor"),
    "R@1 by codes %": _percent("code_retrieval_r1"),
    "PSNR": _plain("psnr"),
    "SSIM": _plain("ssim"),
}
COST: dict[str, Metric] = {
    "steps": lambda result: result["steps"],
    "TFLOP": lambda result: result["train_teraflops"],
    "CPU minutes": lambda result: result["train_cpu_seconds"] / 60,
}


def tables(study: Study, cells: Sequence[Result]) -> str:
    """Returns all tables of a study as Markdown, from the results of its finished cells."""
    by_arm = {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in study.arms}
    by_arm = {arm: results for arm, results in by_arm.items() if results}
    if not by_arm:
        return f"# {study.name}\n\nNo cell is finished.\n"
    wanted = len(study.arms) * len(study.seeds)
    parts = [f"# {study.name}", f"{len(cells)} of {wanted} cells; mean ± standard deviation over seeds."]
    sections = {"Retrieval": RETRIEVAL, "Codebook and MIM": CODEBOOK}
    meaning = MEANING if study.fewer_codes is not None else {}
    if meaning:
        sections |= {"What codes mean": meaning, "PSNR with fewer codes": _rates(cells)}
    fine_tuned, floors = _fine_tuned(cells)
    if study.then is not None and fine_tuned:
        sections[f"Fine-tuned for {study.then.task}"] = {**fine_tuned, **floors}
    for title, metrics in {**sections, "Cost": COST}.items():
        parts += [f"## {title}", _means(by_arm, metrics)]
    if len(by_arm) > 1:
        differences = _differences(by_arm, {**RETRIEVAL, **CODEBOOK, **meaning, **fine_tuned})
        parts += [f"## Less {next(iter(by_arm))!r}, paired by seed (95 % interval of the mean)", differences]
    return "\n\n".join(parts) + "\n"


def _rates(cells: Sequence[Result]) -> dict[str, Metric]:
    """Returns PSNR with other numbers of codes, of which each arm has some."""
    names = dict.fromkeys(
        name for cell in cells for name in cell["figures"] if name.startswith("psnr_") and "_codes" in name
    )
    return {name.removeprefix("psnr_").replace("_", " "): _plain(name) for name in names}


def _fine_tuned(cells: Sequence[Result]) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Returns the metrics of the fine-tuned models, and their floors, in percent."""
    figures: Result = next((cell["then"] for cell in cells if cell.get("then")), {})
    metrics = [name for name in figures if f"{name}_low" in figures]
    floors = [name for name in figures if name.endswith("_floor")]
    reached, given = ({f"{name.replace('_', ' ')} %": _percent_then(name) for name in n} for n in (metrics, floors))
    return reached, given


def _means(by_arm: dict[str, dict[int, Result]], metrics: dict[str, Metric]) -> str:
    rows = [
        [arm, str(len(results)), *(mean([metric(each) for each in results.values()]) for metric in metrics.values())]
        for arm, results in by_arm.items()
    ]
    return markdown(["arm", "seeds", *metrics], rows)


def mean(values: list[float]) -> str:
    """Formats the mean and standard deviation of values; a dash if one is NaN."""
    if any(map(math.isnan, values)):
        return "–"
    spread = f" ± {_number(statistics.stdev(values))}" if len(values) > 1 else ""
    if len(set(values)) == 1:
        return _number(values[0])
    return _number(statistics.fmean(values)) + spread


def _differences(by_arm: dict[str, dict[int, Result]], metrics: dict[str, Metric]) -> str:
    (_, base), *others = by_arm.items()
    rows = []
    for arm, results in others:
        seeds = sorted(set(base) & set(results))
        cells = [interval([metric(results[s]) - metric(base[s]) for s in seeds]) for metric in metrics.values()]
        rows.append([arm, str(len(seeds)), *cells])
    return markdown(["arm", "pairs", *metrics], rows)


def interval(differences: Sequence[float]) -> str:
    """Formats the mean of paired differences and its 95 % interval by Student's t; for one pair the mean only."""
    if not differences or any(map(math.isnan, differences)):
        return "–"
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return f"{_number(mean, signed=True)}"
    half = _T.get(len(differences) - 1, 1.96) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{_number(mean, signed=True)} [{_number(mean - half, signed=True)}, {_number(mean + half, signed=True)}]"


def _number(value: float, signed: bool = False) -> str:
    """Formats a value with about three digits, and an integer with all."""
    if isinstance(value, int):
        return str(value)
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:{'+' if signed else ''}.{digits}f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
