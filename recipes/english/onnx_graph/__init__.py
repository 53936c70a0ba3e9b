"""Run parts of an ONNX graph in PyTorch, many utterances at once.

`graph` holds the weights and runs nodes in their order; a `node` is run by an operator of `layers`,
which have weights, or of `elements`. Only the operators of Kokoro's graph are here. Quantised
operators run in floating point: their integer weights are scaled back, and inputs are not rounded.
Shapes and other small integers stay on the CPU, so that reading them does not wait for the device.
"""

from recipes.english.onnx_graph.graph import Graph

__all__ = ["Graph"]
