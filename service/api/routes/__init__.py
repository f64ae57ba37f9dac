"""One file for each endpoint; `add_routes` of each is called when the application is built."""
