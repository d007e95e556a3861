"""The app: search, ask, draw and look inside in the browser."""
