-- Notes what a repricing posted for one workspace. Locks: nothing but the new row.
INSERT INTO taximeter.repriced_workspaces (workspace_id, repricing, usages, old_cost, new_cost, payment_id)
VALUES (%s, %s, %s, %s, %s, %s)
