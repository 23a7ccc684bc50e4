"""The face model fitted to photographs and scans by optimisation."""
