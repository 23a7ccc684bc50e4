"""Synthetic training faces: people, light, hair, glasses, backgrounds, cameras."""
