"""Test sets under the 19 corruptions of D. Hendrycks and T. Dietterich, ICLR 2019: published files, or generated."""
