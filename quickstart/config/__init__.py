"""Settings: what can be configured, and where each value came from.

How a key is declared is in `keys`, and every key, once, in `settings`. A text becomes a value in
`values`, is judged alone in `checks` and together with the others in `rules`. Where texts come
from is in `layers`: --set, the environment, the file and the default, the first that has one wins.
"""

from quickstart.config.checks import is_path
from quickstart.config.comparison import Difference, differences
from quickstart.config.keys import MASK, Setting
from quickstart.config.layers import DEFAULT_FILE, Loaded, load
from quickstart.config.settings import SETTINGS, Settings

__all__ = [
    "DEFAULT_FILE",
    "MASK",
    "SETTINGS",
    "Difference",
    "Loaded",
    "Setting",
    "Settings",
    "differences",
    "is_path",
    "load",
]
