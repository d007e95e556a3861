"""int8 versions of graphs: weights are 8-bit numbers, activations are quantized as they come."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ..extras import require

# Not the patches' convolution: as an integer product it is slower than in fp32, and a small part of the weights.
_OPERATIONS = ["MatMul", "Gemm", "Gather"]


def int8_name(file: str) -> str:
    """Returns the name of the int8 version of a graph's file."""
    return f"{Path(file).stem}_int8.onnx"


def write_int8(source: Path, target: Path) -> Path:
    """Writes the int8 version of a graph (onnxruntime's dynamic quantization) and returns its path.

    Raises:
        ImportError: If onnxruntime is not installed.
    """
    quantization = require("onnxruntime.quantization")
    with TemporaryDirectory(dir=target.parent) as scratch:
        prepared = Path(scratch, "prepared.onnx")
        # Only shapes are inferred: torch's exporter has optimized the graph already.
        require("onnxruntime.quantization.shape_inference").quant_pre_process(
            str(source), str(prepared), skip_optimization=True, skip_symbolic_shape=True
        )
        quantization.quantize_dynamic(
            prepared, target, op_types_to_quantize=_OPERATIONS, weight_type=quantization.QuantType.QInt8
        )
    return target
