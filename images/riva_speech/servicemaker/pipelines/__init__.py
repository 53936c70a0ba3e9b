"""What riva-build and riva-deploy know about each pipeline; one file a pipeline.

A pipeline is a module with ``NAME``, ``add_arguments``, ``build`` and ``deploy``.
"""
