"""Compares the quantizer's forward in training with vector-quantize-pytorch, and with product and argmin alone.

4,096 tokens of width 768, 3,000 codes, Euclidean distance, straight-through gradient, moving averages (EMA).
Ours includes `after_step`, which training calls once per optimizer step; theirs updates in its forward.
"""

import torch
from measuring import Spread, clock, in_turns, parser, show
from transformers import set_seed

from transformers_cbvila.model.quantizer_nearest_cbvila import CBViLANearestQuantizer, CBViLANearestQuantizerOptions

TOKENS, WIDTH, CODES = 4096, 768, 3000


def our_quantizer(codes: torch.Tensor) -> CBViLANearestQuantizer:
    """Returns a quantizer without projection, as Eq. 1 read literally, with moving averages."""
    size, width = codes.shape
    options = CBViLANearestQuantizerOptions(size=size, dim=None, norm="none")
    quantizer = CBViLANearestQuantizer(options, width).train()
    quantizer.table.set_codes(codes)
    return quantizer


def their_quantizer(codes: torch.Tensor) -> torch.nn.Module | None:
    """Returns vector-quantize-pytorch with the same settings and codes, or None if it is not installed."""
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
    """Returns the share of tokens to which new quantizers of both kinds assign the same code."""
    return float((our_quantizer(codes)(tokens).indices == their_quantizer(codes)(tokens)[1]).float().mean())


def main() -> None:
    """Measures and prints the comparison."""
    arguments = parser(__doc__, "python benchmarks/quantizer.py --rounds 15")
    arguments.set_defaults(rounds=15)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    # Tokens near the codes, as after k-means, so that every code is used.
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
