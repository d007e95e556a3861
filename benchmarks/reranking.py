"""Compares matching of 32 candidate texts with an image: ours, pair by pair, and transformers' BLIP.

Base size, random weights. The states of the image are computed beforehand, for ours also those of the texts (BLIP has
no separate text encoder). Ours projects the image once for all its texts; "pair by pair" is the ordinary pass of the
same model over the same batch, and must have equal scores. SDPA where available: BLIP's text model has its own
attention. First with 30 tokens each, then with 6 to 30, which the others pad to the longest.
"""

from collections.abc import Callable
from typing import Any

import torch
from measuring import Spread, clock, count_flops, in_turns, parser, positive, show
from torch.testing import assert_close
from transformers import BlipConfig, BlipForImageTextRetrieval, set_seed

from transformers_cbvila import CBViLAConfig, CBViLAForImageTextRetrieval
from transformers_cbvila.model.losses_cbvila import matching_scores
from transformers_cbvila.retrieval.gallery import Encoded
from transformers_cbvila.retrieval.matching import text_query_states
from transformers_cbvila.retrieval.pair_matching import match_pairs

TOKENS, FEWEST_TOKENS, FIRST_WORD = 30, 6, 1000
OURS, NAIVE, BLIP = "ours", "pair by pair", "BLIP"


def our_model(image_size: int) -> CBViLAForImageTextRetrieval:
    """Returns our model with random weights."""
    return CBViLAForImageTextRetrieval(CBViLAConfig(vision_config={"image_size": image_size})).eval()


def blip_model(hidden_size: int, **fields: Any) -> BlipForImageTextRetrieval:
    """Returns BLIP with the text model of its base checkpoints; its image encoder, of one layer, is not used."""
    sizes = {"hidden_size": hidden_size, "num_attention_heads": 12}
    text = {**sizes, "encoder_hidden_size": hidden_size, **fields}
    vision = {**sizes, "num_hidden_layers": 1, **fields}
    return BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision)).eval()


def draw_lengths(candidates: int, mixed: bool) -> torch.Tensor:
    """Returns the number of tokens of each candidate (P,), the maximum at least once."""
    lengths = torch.full((candidates,), TOKENS)
    if mixed:
        draws = torch.Generator().manual_seed(0)
        lengths[1:] = torch.randint(FEWEST_TOKENS, TOKENS + 1, (candidates - 1,), generator=draws)
    return lengths


@torch.no_grad()
def tasks(
    ours: CBViLAForImageTextRetrieval, blip: BlipForImageTextRetrieval, lengths: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    """Returns by name functions that compute the scores (P,) of texts of these lengths with one random image."""
    vision, candidates = ours.config.vision_config, len(lengths)
    image = torch.randn(1, 1 + vision.num_patches, vision.hidden_size)
    ids = torch.randint(FIRST_WORD, ours.config.text_config.vocab_size, (candidates, int(lengths.max())))
    mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
    states = ours.cbvila.get_text_features(ids, mask, return_dict=True).last_hidden_state
    texts = Encoded(torch.zeros(candidates, 1), text_query_states(ours, states, mask))
    pairs = torch.stack([torch.zeros(candidates, dtype=torch.long), torch.arange(candidates)], dim=1)
    each = image.expand(candidates, -1, -1)

    @torch.no_grad()
    def shared() -> torch.Tensor:
        return match_pairs(ours, Encoded(torch.zeros(1, 1), list(image)), texts, pairs, progress=False)

    @torch.no_grad()
    def naive() -> torch.Tensor:
        text = ours.cbvila.text_model(ids, mask).last_hidden_state
        fused = ours.cbvila.fuse_text_with_image(text, mask, each)
        return matching_scores(ours.objectives["itm"].head(fused.last_hidden_state[:, 0]))

    @torch.no_grad()
    def theirs() -> torch.Tensor:
        fused = blip.text_encoder(ids, mask, encoder_hidden_states=each).last_hidden_state
        return matching_scores(blip.itm_head(fused[:, 0]))

    return {OURS: shared, NAIVE: naive, BLIP: theirs}


def ratios(times: dict[str, Spread]) -> dict[str, Spread]:
    """Returns the time of the others relative to ours, round by round."""
    return {
        name: Spread([other / own for own, other in zip(times[OURS].values, taken.values, strict=True)])
        for name, taken in times.items()
        if name != OURS
    }


def compare(
    ours: CBViLAForImageTextRetrieval, blip: BlipForImageTextRetrieval, lengths: torch.Tensor, rounds: int
) -> None:
    """Measures and prints one comparison."""
    named = tasks(ours, blip, lengths)
    scores, expected = named[OURS](), named[NAIVE]()
    assert_close(scores, expected, atol=1e-5, rtol=0)
    multiply_adds = {name: count_flops(task) / 2 for name, task in named.items()}
    times = in_turns(named, rounds, clock(scores.device))
    rows = {}
    for name, taken in times.items():
        rate = Spread([len(lengths) / value for value in taken.values])
        counted = multiply_adds[name] / len(lengths) / 1e9
        rows[name] = f"{rate} pairs per CPU-second; {counted:.3g} GMAC per pair"
    for name, ratio in ratios(times).items():
        rows[f"ours / {name}"] = f"{ratio}; by multiply-adds {multiply_adds[name] / multiply_adds[OURS]:.3g}"
    rows["largest difference of scores"] = (
        f"{(scores - expected).abs().max():.1e}, of {expected.std():.1e} (deviation)"
    )
    show(rows)


def main() -> None:
    """Measures and prints all comparisons."""
    arguments = parser(__doc__, "python benchmarks/reranking.py --rounds 5 --image_sizes 256")
    arguments.set_defaults(rounds=3)
    arguments.add_argument("--candidates", type=positive, default=32, metavar="P", help="texts per image; default 32")
    arguments.add_argument("--image_sizes", type=positive, nargs="+", default=[256, 384], metavar="PX")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    blip = blip_model(our_model(options.image_sizes[0]).config.vision_config.hidden_size)
    for size in options.image_sizes:
        ours = our_model(size)
        for mixed in (False, True):
            kind = f"{FEWEST_TOKENS} to {TOKENS}" if mixed else str(TOKENS)
            print(f"{options.candidates} candidates of {kind} tokens, {size} px, float32, {options.threads} thread(s)")
            compare(ours, blip, draw_lengths(options.candidates, mixed), options.rounds)


if __name__ == "__main__":
    main()
