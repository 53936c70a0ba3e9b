"""`python -m quickstart` is `riva-qs`."""

from quickstart.cli import main

if __name__ == "__main__":
    main()
