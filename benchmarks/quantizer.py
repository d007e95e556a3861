"""Training forward of the quantizer, beside vector-quantize-pytorch and beside the bare product and argmin.

4,096 tokens of width 768, 3,000 codes, Euclidean distance, straight-through gradient, moving averages (EMA).
Ours includes `after_step`, which a training run calls once per optimiser step; theirs updates in its forward.
"""

import torch
from measuring import Spread, clock, in_turns, parser, show
from transformers import set_seed

from transformers_cbvila.model.quantizer_nearest_cbvila import CBViLANearestQuantizer, CBViLANearestQuantizerOptions

TOKENS, WIDTH, CODES = 4096, 768, 3000


def our_quantizer(codes: torch.Tensor) -> CBViLANearestQuantizer:
    """A quantizer in the features' own space, as Eq. 1 reads literally, with moving averages."""
    size, width = codes.shape
    options = CBViLANearestQuantizerOptions(size=size, dim=None, norm="none")
    quantizer = CBViLANearestQuantizer(options, width).train()
    quantizer.table.set_codes(codes)
    return quantizer


def their_quantizer(codes: torch.Tensor) -> torch.nn.Module | None:
    """vector-quantize-pytorch with the same settings and codes, or None when it is not installed."""
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        return None
    size, width = codes.shape
    theirs = VectorQuantize(width, size, decay=0.99, rotation_trick=False).train()
    theirs.codebook = codes
    return theirs


@torch.no_grad()
def agreement(codes: torch.Tensor, tokens: torch.Tensor) -> float:
    """Share of tokens to which fresh quantizers of both kinds give the same code: whether they do the same work."""
    return float((our_quantizer(codes)(tokens).indices == their_quantizer(codes)(tokens)[1]).float().mean())


def main() -> None:
    arguments = parser(__doc__, "python benchmarks/quantizer.py --rounds 15")
    arguments.set_defaults(rounds=15)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    # Codes that are near the tokens, as k-means leaves them: every code is used.
    codes = torch.randn(CODES, WIDTH)
    tokens = (codes[torch.randint(CODES, (TOKENS,))] + 0.5 * torch.randn(TOKENS, WIDTH)).view(16, 256, WIDTH)
    tokens.requires_grad_()  # in training they come from the image encoder
    flat, ours, theirs = tokens.detach().view(TOKENS, WIDTH), our_quantizer(codes), their_quantizer(codes)

    def our_step() -> None:
        ours(tokens)
        ours.after_step()

    tasks = {
        "product and argmin": lambda: (flat @ codes.T).argmin(-1),
        "ours, forward": lambda: ours(tokens),
        "ours, forward and step": our_step,
    }
    if theirs is not None:
        tasks["vector-quantize-pytorch"] = lambda: theirs(tokens)
    times = in_turns(tasks, options.rounds, clock(tokens.device))
    print(f"{TOKENS:,} tokens x {WIDTH}, {CODES:,} codes, Euclidean, EMA, float32, {options.threads} thread(s)")
    show({name: f"{Spread([1000 * value for value in taken.values])} CPU-ms" for name, taken in times.items()})
    mine = times["ours, forward and step"].median
    ratios = {"ours / product and argmin": f"{mine / times['product and argmin'].median:.2f}"}
    if theirs is None:
        ratios["ours / vector-quantize-pytorch"] = "not installed: pip install vector-quantize-pytorch"
    else:
        ratios["ours / vector-quantize-pytorch"] = f"{mine / times['vector-quantize-pytorch'].median:.2f}"
        ratios["tokens with the same code"] = f"{agreement(codes, tokens):.2%}"
    show(ratios)


if __name__ == "__main__":
    main()
