"""The recipe of the digits model: synthesize, prepare, train, evaluate."""
