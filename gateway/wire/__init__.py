"""Wire codecs: bytes to exchanges and back, per dialect. Pure: no framework, no client library, no I/O."""
