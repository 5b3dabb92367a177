"""TensorRT: ONNX -> plan -> arrays on the GPU, for tensorrt 10, 11 and tensorrt-rtx."""
