"""Official `config.sh` files, read as data: nothing in them is ever executed.

A text becomes `tokens` (`lexer`), tokens become `statements` (`parser`), statements leave variables
(`evaluation`, with `conditions` and `expansion`; `arrays`), and variables become a config.env
(`takeover`), which is written (`output`).

The official file computes its lists of models, so reading its assignments would not do. The
evaluation therefore follows assignments, tests and loops over lists, within a fixed number of
steps; it knows no command that reads, writes or starts anything.
"""

from quickstart.legacy.output import write
from quickstart.legacy.takeover import Imported, import_config

__all__ = ["Imported", "import_config", "write"]
