"""Models as ONNX graphs: what is exported of which head, int8 versions, and how far their outputs are from torch's."""
