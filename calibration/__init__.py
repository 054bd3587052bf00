"""Calibration: from a floating-point bundle to an INT8 one, with proof of what it cost."""
