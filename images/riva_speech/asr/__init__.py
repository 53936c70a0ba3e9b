"""Speech recognition, from samples to words; nothing here knows of gRPC.

samples -> audio.features -> acoustic -> ctc -> (endpointing) -> results
"""
