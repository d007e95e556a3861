"""What quantizers with a single table of codes have in common; each chooses codes in its own way.

Shapes: D vision width, C code width, K codes.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from .code_table_cbvila import CBViLACodeTable
from .quantizer_cbvila import CBViLAQuantizer, token_codes


class CBViLAOneTableQuantizer(CBViLAQuantizer):
    """Base class of quantizers with one [`CBViLACodeTable`], which a subclass builds as `table`."""

    table: CBViLACodeTable

    def tables(self) -> tuple[CBViLACodeTable, ...]:
        """Returns the table of codes."""
        return (self.table,)

    def followed(self) -> dict[str, nn.Module]:
        """Returns the projection to latents."""
        return {"in_proj": self.table.in_proj}

    def head_codes(self) -> tuple[Tensor, ...]:
        """Returns the codes (K, C) without gradient."""
        return (self.table().detach(),)

    def encode(self, tokens: Tensor, modules: Mapping[str, nn.Module] | None = None) -> Tensor:
        """Projects visual tokens (…, D) to latents (…, C)."""
        return self.table.encode(tokens, None if modules is None else modules["in_proj"])

    def decode(self, codes: Tensor) -> Tensor:
        """Projects codes (…, C) to quantized tokens (…, D)."""
        return self.table.decode(codes)

    def indices_to_quantized(self, indices: Tensor) -> Tensor:
        """Returns the quantized tokens (…, D) of code indices (…)."""
        return self.table.decode(token_codes(indices, self.table()))
