"""Runs exported models with ONNX Runtime, numpy and Pillow: questions and search in processes without torch."""
