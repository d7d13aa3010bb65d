"""The network (GIN) and what belongs to its weights: vocabulary, input preparation, anchors, box coding, checkpoints.

Importing this package imports neither PyTorch nor Pillow: a machine that only prepares inputs needs no more than
`model.preparation`.
"""
