"""What runs inside the images: servicemaker and a Riva-compatible server.

    model.nemo -> nemo2riva -> model.riva -> riva-build -> model.rmir -> riva-deploy -> models/
    models/ -> start-riva -> answers

Each arrow is a program of its own; what it leaves behind is a file the next one reads, so that
any step can run on another machine. Only ``nemo2riva`` needs NeMo and torch.
"""

from importlib.metadata import version

__version__ = version("riva-qs")
