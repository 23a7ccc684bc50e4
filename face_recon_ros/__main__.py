"""`face-recon`, and `python -m face_recon_ros`."""

import sys

_INTERRUPTED = 130


def main() -> int:
    """Runs the command line; Ctrl-C ends it quietly while it is still loaded, too."""
    try:
        from face_recon_ros.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
