"""Measures a speech service from outside, as its clients see it.

    recording.py  a WAV file -> chunks of real time
    wire.py       chunks -> responses, over gRPC
    load.py       many streams at once, paced at real time -> what each one saw
    figures.py    what they saw -> latencies, percentiles, medians over trials
    ladder.py     more and more streams, as long as the service keeps up
    report.py     tables and data
    plot.py       a picture

Three clocks are kept apart: the latency of a chunk (its response received, less its request
sent), finalisation (the last response, less the last sample sent), and throughput (seconds of
audio by seconds of time, unpaced).
"""
