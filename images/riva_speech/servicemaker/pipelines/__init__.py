"""What riva-build and riva-deploy know about each pipeline; one file a pipeline.

A pipeline is a module with its ``NAME``, what riva-build asks of it (``add_arguments``, ``build``)
and what riva-deploy does (``pipelines_of``, ``acoustic_models``, ``write_acoustic_model``,
``write_pipeline``).
"""
