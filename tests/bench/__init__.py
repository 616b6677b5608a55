"""Speed and cost per request, measured on real processes over loopback. Not part of `make test`: `make bench`."""
