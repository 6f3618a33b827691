"""A model for others: transformers' Auto classes, the hub, ONNX, licences and the model card."""
