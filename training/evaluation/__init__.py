"""Run or export -> evaluation.json with contact sheet: how good its images are."""
