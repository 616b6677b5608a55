"""The shell: pipeline, upstreams, streaming relay, sessions, limits."""
