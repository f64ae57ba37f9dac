"""ONNX Runtime: graphs, and pictures from seeds."""
