"""The web pages and the JSON API for people who approve. Knows the queue and the run store, never the data plane."""
