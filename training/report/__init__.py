"""Run -> report.html."""
