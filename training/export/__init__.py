"""Run -> export: ONNX graphs, weights, manifest."""
