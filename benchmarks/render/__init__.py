"""Show a report: in a terminal, as Markdown, CSV or a page."""
