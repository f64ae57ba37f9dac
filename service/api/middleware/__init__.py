"""What every request passes before its route: log, body limits, API keys."""
