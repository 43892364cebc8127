"""What a study will cost, before and while it runs: image passes, hours, memory, disk.

cost.py counts the work of a config, calibration.py holds how fast a machine does it, pace.py joins both into seconds,
estimate.py sums over a study, budget.py chooses what still fits into a time. measuring.py alone trains anything.
"""
