"""How each model family leaves NeMo.

`models` builds what a checkpoint holds, `uninitialised` without random values first, and
`description` reads of it what later stages need. `ctc` and `transducer` are the families. Their
encoders' steps of streams are modules of ours: `streaming`, of `subsampling` and `conformer` layers.
`graphs` and `tracing` write them as ONNX, `folding` and `sharing` put the weights in, once for all.
"""
