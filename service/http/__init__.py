"""The API over HTTP: routes, and the guard around them."""
