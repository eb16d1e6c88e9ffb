-- Appends to the usage log. Binary rows, packed by usage_rows.py in the order of columns.KINDS, which fills the braces.
COPY taximeter.usages ({columns}) FROM STDIN (FORMAT binary)
