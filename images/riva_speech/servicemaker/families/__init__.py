"""How each model family leaves NeMo.

`models` builds what a checkpoint holds, `uninitialised` without random values first, and
`description` reads of it what later stages need; `context` is how far whole utterances look. `ctc`
and `transducer` are the families. Steps of streams are modules of ours: `streaming`, made of
`subsampling` and of layers of a `conformer`.
`graphs` and `tracing` write ONNX, `folding` and `sharing` put the weights in, once for all.
"""
