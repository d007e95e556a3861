"""HTML pages in a single file with embedded styles and images."""
