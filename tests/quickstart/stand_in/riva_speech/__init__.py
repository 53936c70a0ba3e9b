"""A stand-in for the engine: the same command lines, and faults on demand.

The host half meets the engine at processes, files and ports only, so tests put this package in
the engine's place with PYTHONPATH and choose a fault with the variables STAND_IN_DEPLOY and
STAND_IN_SERVE. What it deploys is text; what it hears is always the same.
"""
