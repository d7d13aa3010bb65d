"""From a checkpoint to served files: ONNX and TorchScript, each compared with the checkpoint before it is accepted."""
