"""ONNX Runtime: graphs, and images from seeds."""
