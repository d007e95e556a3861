"""A page of static files that searches pictures and draws them in the browser, with exported models."""
