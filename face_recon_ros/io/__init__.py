"""The one door for everything that is read and written: files, videos, bags, camera messages."""
