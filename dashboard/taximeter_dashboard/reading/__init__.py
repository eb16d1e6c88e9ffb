"""What the page, the JSON API and the exports read alike: windows of a log, filters, cursors, the analysis."""
