"""The sections of the codebook page as HTML strings. Text from data is escaped.

Shapes: M images, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

import numpy as np
from PIL import Image

from ..inspection.code_words import CodeWords
from ..inspection.visual_words import ReconstructionExample, VisualWords
from ..model.objective_mim_cbvila import CBViLAMIM
from ..model.objective_pixel_cbvila import CBViLAPixel
from .code_word_sections import places_tag, rgb, swatch, words_of_code
from .codebook_images import distinct_colours, index_map, numbered_patches, outlined_patches, patch_strip
from .document import UNKNOWN, counted, image_tag, percent, table, tile

_COLUMNS = (
    "caption",
    "image",
    "what stays visible",
    "drawn from its own words",
    "hidden words predicted",
    "predicted with another caption",
)
# Metrics of meaning: title, decimals, and what they are read against.
_MEANING = (
    ("code_purity", "purity of codes", 3, "{}, the highest of 19 shuffles of words over images"),
    ("code_word_mutual_information", "nats that a code tells of a word", 4, "{}, the highest of 19 such shuffles"),
    ("code_probe_accuracy", "linear probe on codes", 3, "{}, always what is more frequent"),
    ("code_retrieval_r1", "images found by codes and words alone, R@1", 3, "{}, by chance"),
    ("psnr", "PSNR of reconstructions, dB", 2, "95 % interval over images"),
    ("ssim", "SSIM of reconstructions", 3, "1, of equal images"),
)
_LISTED = 16  # words of an image that are listed


def note(text: str) -> str:
    """Returns a paragraph below the heading."""
    return f"<p>{escape(text)}</p>"


def intro_section(words: VisualWords, row: int, image: np.ndarray, caption: str) -> str:
    """Explains visual words by one of the M images, divided into numbered patches."""
    rows, columns = words.grid
    codes = [" + ".join(f"{code:,}" for code in patch) for patch in words.indices[row].tolist()]
    listed = ", ".join(codes[:_LISTED]) + (" …" if len(codes) > _LISTED else "")
    alt = f"{caption}: the picture cut into {rows} by {columns} numbered patches"
    cut = image_tag(numbered_patches(image, words.grid), alt)
    return f"""<section><h2>What a visual word is</h2><div class="intro">{cut}
<div><p>The model cuts a picture into {rows * columns:,} patches and gives each the most similar of
{counted(len(words.counts), "code")} that it has learned: its <em>codebook</em>. A code is to a picture what a word is
to a sentence, so the code of a patch is called its <em>visual word</em>. The words of this picture, from patch 1 on,
are {listed}.</p>
<p>In training, words are hidden and predicted from the others and the caption (masked image modelling, MIM), and
pictures are reconstructed from their words. This page shows how much of the codebook is used, how well both work,
and which patches share a word.</p></div></div></section>"""


def health_section(metrics: Mapping[str, float], counts: np.ndarray) -> str:
    """Shows the headline metrics, their baselines, and a histogram of the codes' counts (K,)."""
    total, num_codes = int(counts.sum()), len(counts)
    tiles = [
        tile(percent(metrics["codebook_usage"], 1), f"of {num_codes:,} codes are used, on {total:,} patches"),
        tile(f"{metrics['codebook_perplexity']:.1f}", "perplexity: as varied as so many equally frequent codes"),
        tile(percent(metrics["codebook_top_share"], 1), "of the patches have the most frequent code"),
        tile(percent(metrics["mim_accuracy"], 1), "of the hidden words are predicted correctly"),
    ]
    return f"""<div class="tiles">{"".join(tiles)}</div>
<section><h2>Codes by use</h2>{_histogram(counts)}
<p class="soft">Share of the patches with each code, the most used code on the left, on a logarithmic scale. Dashed:
all codes equally used. {_unused(counts)}</p></section>
<section><h2>Compared with baselines</h2>{table("Metrics and their baselines", _comparisons(metrics), name="metrics")}
</section>"""


def _unused(counts: np.ndarray) -> str:
    unused = int((counts == 0).sum())
    return f"{counted(unused, 'code')} {'is' if unused == 1 else 'are'} not used."


def _comparisons(metrics: Mapping[str, float]) -> str:
    low, high = metrics["mim_advantage_low"], metrics["mim_advantage_high"]
    lines = [
        (
            "MIM cross-entropy",
            f"{metrics[CBViLAMIM.name]:.3f}",
            f"{metrics['ln_perplexity']:.3f}, from frequencies alone",
        ),
        ("saved by the true caption", f"{low:.4f} to {high:.4f} nats", "0; 95 % interval over images"),
        (
            "MIM accuracy",
            percent(metrics["mim_accuracy"], 1),
            f"{percent(metrics['mim_accuracy_shuffled_caption'], 1)} with another caption, "
            f"{percent(metrics['mim_accuracy_position_floor'], 1)} by the most frequent code of each position",
        ),
        (
            "pixel error",
            f"{metrics[CBViLAPixel.name]:.3f}",
            f"{metrics['pixel_floor']:.3f}, the mean colour everywhere",
        ),
    ]
    lines += [
        (title, _interval_of(metrics, name, digits), beside.format(_rounded(metrics, f"{name}_floor", digits)))
        for name, title, digits, beside in _MEANING
        if name in metrics
    ]
    for way, title in (("text", "texts found by image"), ("image", "images found by text")):
        name = f"{way}_retrieval_r1"
        if name in metrics:
            stages = {f"{name}_reranked": "re-ranked by matching", f"{name}_fitted": "by both"}
            beside = [f"{_interval(metrics, key)} {how}" for key, how in stages.items() if key in metrics]
            lines.append((f"{title}, R@1", _interval(metrics, name), "; ".join(beside)))
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{escape(value)}</td><td>{escape(beside)}</td></tr>'
        for name, value, beside in lines
    )


def _interval_of(metrics: Mapping[str, float], name: str, digits: int) -> str:
    low, high = (_rounded(metrics, f"{name}_{end}", digits) for end in ("low", "high"))
    return f"{_rounded(metrics, name, digits)} ({low} to {high})"


def _rounded(metrics: Mapping[str, float], name: str, digits: int) -> str:
    return f"{metrics[name]:.{digits}f}" if name in metrics else UNKNOWN


def _interval(metrics: Mapping[str, float], name: str) -> str:
    low, high = (100 * metrics[f"{name}_{end}"] for end in ("low", "high"))
    return f"{percent(metrics[name], 1)} ({low:.1f} to {high:.1f})"


def _histogram(counts: np.ndarray) -> str:
    """Returns an SVG of the sorted shares of codes (K,) on a logarithmic scale, with a line for uniform use."""
    width, height, left, bottom = 960, 220, 110, 190
    shares = np.sort(counts / max(1, counts.sum()))[::-1]
    used = shares[shares > 0]
    lowest = floor(log10(min(used.min(initial=1.0), 1 / len(shares))))
    highest = max(ceil(log10(used.max(initial=1 / len(shares)))), lowest + 1)

    def y(share: float) -> float:
        return bottom - (log10(share) - lowest) / (highest - lowest) * (bottom - 10)

    step = (width - left) / len(shares)
    bars = "".join(
        f"M{left + i * step:.2f} {bottom}V{y(share):.2f}h{step * 0.86:.2f}V{bottom}z" for i, share in enumerate(used)
    )
    ticks = "".join(
        f'<line x1="{left}" x2="{width}" y1="{y(10.0**power):.1f}" y2="{y(10.0**power):.1f}"/>'
        f'<text x="{left - 8}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">{100 * 10.0**power:g} %</text>'
        for power in range(lowest, highest + 1)
    )
    uniform = y(1 / len(shares))
    label = (
        f"Shares of {len(shares):,} codes by use: the most used has {percent(float(shares[0]))}, the one in the "
        f"middle {percent(float(shares[len(shares) // 2]))}; equal use would be {percent(1 / len(shares))}"
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{ticks}'
        f'<path d="{bars}"/><line class="uniform" x1="{left}" x2="{width}" y1="{uniform:.1f}" y2="{uniform:.1f}"/>'
        f'<text x="{left}" y="{height - 4}">code 1</text>'
        f'<text x="{width}" y="{height - 4}" text-anchor="end">code {len(shares):,} by use</text></svg>'
    )


def reconstructions_section(examples: Sequence[ReconstructionExample], mask_ratio: float) -> str:
    """Shows images reconstructed from visual words, as in the paper's Fig. 2."""
    head = "".join(f'<th scope="col">{title}</th>' for title in _COLUMNS)
    rows = "".join(_reconstruction_row(example) for example in examples)
    return f"""<section><h2>Drawn from visual words</h2>
<p class="soft">As in the paper's Fig. 2. {percent(mask_ratio, 0)} of the words are hidden; MIM predicts the likeliest
word of each from the visible ones and the caption, and the pixel head draws the image from all words. Hidden patches
are outlined, with the share of correctly predicted words below. A plain background is easy to predict.</p>
{table("Images, and what is drawn from their visual words", rows, head, "reconstructions")}</section>"""


def _reconstruction_row(example: ReconstructionExample) -> str:
    accuracy, accuracy_other = (f"{percent(each, 0)} right" for each in (example.accuracy, example.accuracy_other))
    predicted, predicted_other = (
        outlined_patches(image, example.bool_masked_pos, example.patch_size)
        for image in (example.predicted, example.predicted_other)
    )
    columns = [
        (Image.fromarray(example.image), ""),
        (Image.fromarray(example.masked), ""),
        (Image.fromarray(example.reconstructed), ""),
        (predicted, accuracy),
        (predicted_other, accuracy_other),
    ]
    cells = "".join(
        f"<td>{image_tag(image, _alt(example, title, share))}"
        f'<span class="soft which" aria-hidden="true">{title}</span><span class="soft">{share}</span></td>'
        for title, (image, share) in zip(_COLUMNS[1:], columns, strict=True)
    )
    return (
        f'<tr><th scope="row">{escape(example.caption)}'
        f'<span class="soft">other: {escape(example.other_caption)}</span></th>{cells}</tr>'
    )


def _alt(example: ReconstructionExample, title: str, share: str) -> str:
    caption = example.other_caption if title == _COLUMNS[-1] else example.caption
    return f"{caption}: {title}" + (f", {share}" if share else "")


def codes_section(
    words: VisualWords,
    crops_of_code: Mapping[int, list[np.ndarray]],
    patch_size: int,
    columns: int,
    code_words: CodeWords | None = None,
) -> str:
    """Shows patches of codes, as in the paper's Fig. 3, with words that go with them and where they occur.

    Args:
        words: The visual words.
        crops_of_code: Patches with their neighbours, by code.
        patch_size: Pixels per side of a patch.
        columns: Crops per line.
        code_words: Words of codes, if there are any.
    """
    total = max(1, int(words.counts.sum()))
    rows = []
    for code, crops in crops_of_code.items():
        count, images = int(words.counts[code]), int((words.indices == code).any(axis=(1, 2)).sum())
        rows.append(
            f'<tr><th scope="row">{swatch(words, code)}{code}'
            f'<span class="soft">{percent(count / total, 2)}, {count:,} ×</span>'
            f'<span class="soft">in {counted(images, "image")}</span>'
            f"{words_of_code(code_words, code) if code_words else ''}{places_tag(code, words)}</th>"
            f"<td>{image_tag(patch_strip(crops, patch_size, columns), _strip_alt(code, len(crops), rgb(words, code)))}"
            "</td></tr>"
        )
    return f"""<section><h2>What codes stand for</h2>
<p class="soft">As in the paper's Fig. 3: framed patches of different images that have the same code, with their
neighbours. The most used codes, then some of the others in use, drawn at random. The square beside a code's number
has the mean colour of its patches; below are words that captions and labels of its images have more often than others,
with their share in the code's patches and in all, and a map of where in a picture the code occurs.</p>
{table("Codes with patches that have them", "".join(rows), name="codes")}</section>"""


def _strip_alt(code: int, crops: int, colour: str) -> str:
    return f"{counted(crops, 'place')} of code {code} in pictures, framed; mean colour rgb({colour})"


def _maps_of(words: VisualWords, row: int, caption: str, distinct: np.ndarray) -> str:
    """Returns two maps of an image's codes for each book: in their mean colours, and in a distinct colour each."""
    maps = []
    for book in range(words.indices.shape[2]):
        indices, which = words.indices[row, :, book], f" of book {book + 1}" if words.indices.shape[2] > 1 else ""
        different = f"{counted(len(np.unique(indices)), 'different code')}, a colour each"
        maps += [
            image_tag(index_map(indices, words.grid, words.colours), f"{caption}: mean colours of its codes{which}"),
            image_tag(index_map(indices, words.grid, distinct), f"{caption}: its {different}{which}"),
        ]
    return "".join(maps)


def maps_section(words: VisualWords, shown: Mapping[int, tuple[np.ndarray, str]]) -> str:
    """Shows images beside the maps of their codes; `shown` has image and caption of some of the M rows."""
    distinct = distinct_colours(words.counts)
    maps = [
        f'<div class="map">{image_tag(Image.fromarray(image), caption)}'
        f"{_maps_of(words, row, caption, distinct)}"
        f'<span class="soft">{escape(caption)}</span></div>'
        for row, (image, caption) in shown.items()
    ]
    return f"""<section><h2>Maps of codes</h2>
<p class="soft">The image; each patch in the mean colour of its code; each patch in a colour that stands for its
code.</p>
<div class="maps">{"".join(maps)}</div></section>"""
