"""What the served model `gin` does: file bytes and sentences in, boxes out, inside one process.

`triton` is the only module here that needs a Triton server around it.
"""
