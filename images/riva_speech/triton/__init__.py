"""The models that Triton's Python backend runs.

A deployed model's ``1/model.py`` is one import from here, so a repository holds no code that ages:
the Python that Triton starts must be able to import this package. Only Triton brings the module
``triton_python_backend_utils``; nothing outside this folder imports it.
"""
