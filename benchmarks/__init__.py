"""How fast this is, beside its peers: each script is one command, and prints ratios."""
