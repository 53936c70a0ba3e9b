"""How each model family leaves NeMo; one file a family."""
