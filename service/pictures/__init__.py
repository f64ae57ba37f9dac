"""Requests for pictures -> what is painted, and how it is finished."""
