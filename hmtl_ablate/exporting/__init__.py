"""Trained networks as files for other programs: ONNX, PyTorch's pt2, and a folder that timm loads.

Each file holds a `Description` of the network, as JSON: its tasks and classes, the preprocessing, the data and its
licence, and the trial. Files are read as hostile input: none of them can run code, unpickle, or name another file.
"""
