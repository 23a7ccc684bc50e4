"""Training examples made in torch, in batches: on a GPU nothing is done per crop on the CPU."""
