"""`python -m face_recon_ros` is `face-recon`."""

import sys

from face_recon_ros.cli.main import main

sys.exit(main())
