"""The model: exactly the files that travel beside published weights, in one flat folder."""
