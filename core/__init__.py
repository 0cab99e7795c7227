"""The compiled scoring core: a model file in, points and explained answers out.

It knows no HTTP, no asyncio, no database.
"""

ENGINE_VERSION = 1
"""Raised whenever the same input under the same model could give another answer or another record layout."""
