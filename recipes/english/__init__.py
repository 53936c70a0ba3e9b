"""The recipe of the embedded English model: texts, synthesis, training, evaluation, packaging."""
