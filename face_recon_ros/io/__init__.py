"""All reading and writing: files, videos, bags, camera messages."""
