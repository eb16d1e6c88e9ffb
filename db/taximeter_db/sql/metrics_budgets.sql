-- Counts budgets by state, through a function that the role for metrics may call. Locks: nothing.
SELECT * FROM taximeter.metrics_budgets()
