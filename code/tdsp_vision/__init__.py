"""Helpers of the three TDSP notebooks; one sub-package per stage: data, modeling, deployment."""
