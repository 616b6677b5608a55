"""Pure nouns and rules of the gateway. Knows no framework, no client library, no clock."""
