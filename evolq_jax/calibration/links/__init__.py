"""The links of the calibration chain, one file each."""
