"""Residual quantization: several books per token, each for the residual of the previous ones (arXiv 2107.03312).

Shapes: B batch, N visual tokens, D vision width, C code width, R books, K codes of a book.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .autocast_cbvila import without_autocast
from .code_gradients_cbvila import straight_through
from .code_table_cbvila import CBViLACodeTable
from .losses_cbvila import at_least_fp32, codebook_loss, commitment_loss
from .nearest_codes_cbvila import count_codes
from .options_cbvila import options, require_range
from .projections_cbvila import project, projections
from .quantizer_cbvila import CBViLAQuantizer, CBViLAQuantizerOptions, token_codes, unused_decay
from .quantizer_output_cbvila import DEFAULT_GRADIENTS, CBViLAGradients, CBViLAQuantizerHints, CBViLAQuantizerOutput


@options
class CBViLAResidualQuantizerOptions(CBViLAQuantizerOptions):
    """Options of [`CBViLAResidualQuantizer`].

    Args:
        depth: Number of books R, at least 2 (one book is the quantizer `"nearest"`).
        size: Number of codes K of each book.
        dim: Code width C. `None` is the width of the vision encoder, without projections around the look-up.
        update: How codes learn: as moving averages of the residuals assigned to them (`"ema"`), or by the second term
            of Eq. 3 (`"loss"`).
        decay: Decay of the moving average per optimizer step.
    """

    depth: int = 2
    size: int = 1024
    dim: int | None = 32
    update: Literal["ema", "loss"] = "ema"
    decay: float = 0.99

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        require_range(where, "depth", self.depth, 2)
        require_range(where, "size", self.size, 2)
        if self.dim is not None:
            require_range(where, "dim", self.dim, 1)
        require_range(where, "decay", self.decay, 0, 1)

    def unused(self) -> dict[str, str]:
        """Returns the options that others leave without effect."""
        return unused_decay(self.update)


class CBViLAResidualQuantizer(CBViLAQuantizer):
    """Replaces each token by a sum of codes, one from each of R books.

    Projections surround the look-up unless codes have the width of tokens. Latents and codes are not scaled to length
    1, since residuals get shorter from book to book.
    """

    name = "residual"
    options_class = CBViLAResidualQuantizerOptions
    collapse_advice = "update='ema', or a small dim, in quantizer_config; fewer codes"

    def __init__(
        self, options: CBViLAResidualQuantizerOptions, width: int, gradients: CBViLAGradients = DEFAULT_GRADIENTS
    ) -> None:
        super().__init__(options, width, gradients)
        dim, decay = options.dim or width, options.decay if options.update == "ema" else None
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if dim != width:
            self.in_proj, self.out_proj = projections(width, dim)
        self.books = nn.ModuleList(CBViLACodeTable(size, dim, decay=decay) for size in self.book_sizes)
        # Always in fp32 at least (see CBViLAModel), also in a model that is made in half precision.
        self.to(torch.promote_types(torch.get_default_dtype(), torch.float32))

    @classmethod
    def sizes(cls, options: Any) -> tuple[int, ...]:
        """Returns K of each of the R books."""
        return (options.size,) * options.depth

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        """Returns the table of codes of each book."""
        return cast("tuple[CBViLACodeTable, ...]", tuple(self.books))

    def followed(self) -> dict[str, nn.Module]:
        """Returns the projection to latents."""
        return {"in_proj": self.in_proj}

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the codes (K, C) of each book without gradient."""
        return tuple(table().detach() for table in self.tables())

    @without_autocast
    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects visual tokens (…, D) to latents (…, C)."""
        return at_least_fp32(project(self.in_proj if modules is None else modules["in_proj"], tokens))

    @without_autocast
    def decode(self, codes: Tensor) -> Tensor:
        """Projects sums of codes (…, C) to quantized tokens (…, D)."""
        return project(self.out_proj, codes)

    @without_autocast
    def lookup(self, latents: Tensor, hints: CBViLAQuantizerHints | None = None) -> Tensor:
        """Returns the code indices (…, R) of latents (…, C)."""
        with torch.no_grad():
            return torch.stack([indices for _, indices, _ in self._by_book(latents)], dim=-1)

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of code indices (…, R)."""
        books = zip(indices.unbind(-1), self.tables(), strict=True)
        return self.decode(_sum_codes(token_codes(book_indices, table()) for book_indices, table in books))

    @without_autocast
    def forward(
        self, tokens: Tensor, remember: bool = True, hints: CBViLAQuantizerHints | None = None
    ) -> CBViLAQuantizerOutput:
        """Quantizes visual tokens (B, N, D), see [`CBViLAQuantizer.forward`]."""
        self.check_hints(hints)
        latents = self.encode(tokens)
        books, counts = self._by_book(latents), []
        counts_in_averages = remember and self.learns and self.options.update == "ema"
        for table, (residuals, indices, _) in zip(self.tables(), books, strict=True):
            counts.append(count_codes(indices, table.num_codes))
            if counts_in_averages:
                table.remember(residuals.detach(), indices, counts[-1])
        codes = _sum_codes(book_codes for _, _, book_codes in books)
        source = self.source_of(latents)
        pairs = [(residuals, book_codes) for residuals, _, book_codes in books]
        terms = {"commitment": torch.stack([commitment_loss(*pair) for pair in pairs]).mean()}
        if self.options.update == "loss":
            terms["codebook"] = torch.stack([codebook_loss(*pair) for pair in pairs]).mean()
        return CBViLAQuantizerOutput(
            quantized=self.decode(straight_through(source, codes) if self.training else codes),
            detached=self.decode(self.detached_codes(latents, codes)),
            indices=torch.stack([indices for _, indices, _ in books], dim=-1),
            counts=torch.cat(counts),
            codes=self.head_codes(),
            terms=terms,
        )

    def _by_book(self, latents: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Returns, for each book, the residuals (…, C) of latents (…, C), their code indices (…) and codes (…, C)."""
        books, residuals = [], latents
        for table in self.tables():
            indices = table.lookup(residuals)
            codes = token_codes(indices, table())
            books.append((residuals, indices, codes))
            residuals = residuals - codes.detach()
        return books

    @torch.no_grad()
    def fit(
        self, latents: Tensor, generator: torch.Generator, scale: float, hints: CBViLAQuantizerHints | None = None
    ) -> None:
        """Fits each book to the residuals of the previous ones, starting from latents (M, C)."""
        residuals = latents
        for table in self.tables():
            table.fit(residuals, generator, scale)
            codes = table.whole_codes()
            residuals = residuals - token_codes(table.lookup(residuals), codes)


def _sum_codes(codes: Iterable[Tensor]) -> Tensor:
    """Adds up codes (…, C), always in the same order, so that results are equal bit for bit."""
    return torch.stack(list(codes)).sum(0)
