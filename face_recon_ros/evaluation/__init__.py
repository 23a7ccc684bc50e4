"""Evaluation: measure the pipeline, and say with what certainty."""
