"""Budgets: what a part of a workspace's usage may cost in a period.

A usage counts in the period in which it happened, whenever it is booked; `counting` adds it in the transaction that books it.
Whatever moves what was spent, or the limit, ends in `standing.settle`: it notes which thresholds are reached, logs each crossing
once, and, where a hard budget is used up or restored, changes what the workspace's flag says and leaves the flag debt.
"""
