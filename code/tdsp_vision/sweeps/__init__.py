"""Many runs of the modelling notebook, one for each combination of parameters: grids, searches, one machine or many.

outputs/<dataset>/sweeps/<sweep id>/  sweep.json  results.csv  results.png  search.db  lock
                                      trials/<number>/   see `trial`
outputs/<dataset>/runs/*-<sweep id>-<number>/   the run of a trial, proof that the trial is done
"""
