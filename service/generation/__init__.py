"""Requests for images -> what is generated, and how it is encoded."""
