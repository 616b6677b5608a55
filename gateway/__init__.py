"""A guardrail and human-in-the-loop gateway between AI agents and the models and tools they call."""

__version__ = "0.1.0"
