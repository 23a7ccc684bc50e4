"""Names of array types."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
