"""The whole system as real processes, faults that strike it, traffic that can be reckoned, and the reckoning itself."""
