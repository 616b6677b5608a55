"""`gateway demo`: the main job with a small bank, a scripted model and an agent made of the official client libraries.

Nothing here is used by `gateway serve`. The gateway runs as a process of its own, as in real life.
"""
